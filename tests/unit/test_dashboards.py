"""Dashboards and alerts against the metrics that the code declares."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.dashboard.modules.metrics import dashboards as rays_dashboards

from raycrp.prometheus import METRICS, TRAINING, Kind
from raycrp.tracking import METRICS as TRACKED

ROOT = Path(__file__).parents[2] / "dashboards"
BOARDS = sorted((ROOT / "grafana").glob("*.json"))
ALERTS = yaml.safe_load((ROOT / "alerts.yml").read_text())["groups"][0]["rules"]
EXPORTED = {name: metric for metric in METRICS.values() for name in metric.exported_names}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def panels(path):
    board = json.loads(path.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(path):
    """What a dashboard asks Prometheus for, its variables set to match everything."""
    texts = [target["expr"] for panel in panels(path) for target in panel["targets"]]
    return [re.sub(r"\$\w+", ".*", text) for text in texts]


def all_expressions():
    return [text for path in BOARDS for text in expressions(path)] + [
        rule["expr"] for rule in ALERTS
    ]


def our_metrics(text):
    return set(re.findall(r"\bray_raycrp_\w+", text))


class TestMetricsAndDashboards:
    def test_every_metric_named_is_declared(self):
        named = set().union(*map(our_metrics, all_expressions()))
        assert named <= set(EXPORTED)
        assert len(named) > 30

    def test_every_metric_declared_is_shown_or_rings(self):
        named = set().union(*map(our_metrics, all_expressions()))
        assert not set(EXPORTED) - named

    @pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
    def test_variables_ask_for_a_declared_metric_and_one_of_its_tags(self, path):
        variables = json.loads(path.read_text())["templating"]["list"]
        assert "run" in [variable["name"] for variable in variables]
        for variable in variables:
            name, tag = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", variable["query"]["query"]
            ).groups()
            assert tag in EXPORTED[name].tag_keys

    @pytest.mark.parametrize("text", all_expressions())
    def test_series_are_told_apart_by_declared_tags_alone(self, text):
        """Ray adds a tag for each process; what is not grouped by ours would fall apart."""
        tags = {tag for name in our_metrics(text) for tag in EXPORTED[name].tag_keys}
        for grouping in re.findall(r"\b(?:by|on) \(([^)]*)\)", text) if tags else []:
            assert set(grouping.replace(" ", "").split(",")) <= tags | {"le"}
        for selector in re.findall(r"ray_raycrp_\w+\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)=", selector)) <= tags
        if tags:
            assert re.search(r"\b(sum|max)\b", text)

    def test_metrics_of_ray_are_ones_that_ray_itself_shows(self):
        folder = Path(rays_dashboards.__file__ or next(iter(rays_dashboards.__path__)))
        folder = folder if folder.is_dir() else folder.parent
        theirs = "".join(path.read_text() for path in folder.glob("*.py"))
        named = set().union(
            *(re.findall(r"\b(?:ray|autoscaler)_\w+", text) for text in all_expressions())
        )
        others = {name for name in named if not name.startswith("ray_raycrp_")}
        assert others
        assert [name for name in others if name not in theirs] == []


class TestBoards:
    def test_there_are_four_with_ids_of_their_own(self):
        boards = [json.loads(path.read_text()) for path in BOARDS]
        assert [board["uid"] for board in boards] == [path.stem for path in BOARDS]
        assert len(BOARDS) == len({board["title"] for board in boards}) == 4

    @pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
    def test_panels_do_not_overlap_and_stay_on_the_page(self, path):
        taken = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (place["x"] + dx, place["y"] + dy)
                for dx in range(place["w"])
                for dy in range(place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells

    @pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
    def test_every_panel_reads_the_provisioned_source_and_has_a_unit(self, path):
        source = yaml.safe_load(
            (ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text()
        )["datasources"][0]
        ids = [panel["id"] for panel in panels(path)]
        assert len(ids) == len(set(ids))
        for panel in panels(path):
            assert panel["title"]
            assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
            assert panel["fieldConfig"]["defaults"]["unit"]

    def test_everything_listens_on_loopback(self):
        services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
        assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
        assert not [service for service in services.values() if "ports" in service]


def test_the_training_log_is_shown_under_declared_gauges():
    later = {"mfu", "loss_scale", "skipped_steps", "workers"}
    assert set(TRAINING) - later <= set(TRACKED)
    assert all(METRICS[name].kind is Kind.GAUGE for name in TRAINING.values())


def test_every_alert_says_what_is_wrong_and_what_to_do():
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "{{ $labels.run }}" in rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 30
    tests = (ROOT / "alerts_test.yml").read_text()
    assert [rule["alert"] for rule in ALERTS if rule["alert"] not in tests] == []


@needs_promtool
class TestPromtool:
    def run(self, *words):
        return subprocess.run(
            ["promtool", *map(str, words)], capture_output=True, text=True, check=False
        )

    def test_it_takes_the_configuration(self):
        result = self.run("check", "config", ROOT / "prometheus.yml")
        assert result.returncode == 0, result.stdout + result.stderr

    def test_alerts_ring_when_they_should(self):
        result = self.run("test", "rules", ROOT / "alerts_test.yml")
        assert result.returncode == 0, result.stdout + result.stderr

    def test_an_alert_with_another_limit_is_caught(self, tmp_path):
        rules = (ROOT / "alerts.yml").read_text()
        (tmp_path / "alerts.yml").write_text(rules.replace("> 600", "> 60"))
        shutil.copy(ROOT / "alerts_test.yml", tmp_path)
        assert self.run("test", "rules", tmp_path / "alerts_test.yml").returncode != 0

    def test_every_expression_parses(self, tmp_path):
        rules = [
            {"record": f"panel:{number}", "expr": text}
            for number, text in enumerate(all_expressions())
        ]
        path = tmp_path / "panels.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        result = self.run("check", "rules", path)
        assert result.returncode == 0, result.stdout + result.stderr
