"""A real Prometheus scrapes a Ray job by Ray's service discovery and answers every panel."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from ray_head import free_ports, ray_command

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
TIMEOUT_S = 240

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not installed (Debian: apt-get install prometheus)",
    ),
]

FEED = """
import time
import ray
from raycrp import prometheus

VALUES = {prometheus.Kind.COUNTER: prometheus.count, prometheus.Kind.GAUGE: prometheus.set_gauge,
          prometheus.Kind.HISTOGRAM: prometheus.observe}
TAGS = {"run": "demo", "stage": "train", "task": "forward", "state": "done"}
ray.init()
with prometheus.stage_shown("data", run="demo"):
    pass
with prometheus.stage_shown("train", run="demo"):
    for number in range(1, 300):
        for metric in prometheus.METRICS.values():
            if not metric.name.startswith("raycrp_stage_") or "rows" in metric.name:
                value = time.time() if metric.name.endswith("time_seconds") else float(number)
                tags = {key: TAGS.get(key, "x") for key in metric.tag_keys}
                VALUES[metric.kind](metric.name, value, **tags)
        prometheus.set_training(number, {"validation_exact": 0.5}, run="demo")
        prometheus.note_progress(run="demo", stage="train")
        time.sleep(1)
"""

ABSENT = ("ray_node_gpus_utilization", 'Name="GPU"')
"""Of Ray's own, and only where there is a GPU."""


@pytest.fixture(scope="module")
def ask(head):
    """Values that Prometheus has for an expression, while a job feeds every metric."""
    job, store = head.folder / "job", head.folder / "prometheus"
    for folder in (job, store):
        folder.mkdir()
    (job / "feed.py").write_text(FEED)
    subprocess.run(
        [
            *ray_command("job", "submit", "--no-wait", "--submission-id", "feed"),
            *("--working-dir", str(job), "--", "python", "feed.py"),
        ],
        env=head.environment,
        capture_output=True,
        check=True,
    )
    settings = (
        (DASHBOARDS / "prometheus.yml").read_text().replace("/tmp/ray/", f"{head.folder}/ray/")
    )
    (store / "prometheus.yml").write_text(settings.replace("10s", "2s"))
    shutil.copy(DASHBOARDS / "alerts.yml", store)
    [port] = free_ports(1)
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={store}/prometheus.yml",
            f"--storage.tsdb.path={store}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )

    def _ask(expression):
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}") as answer:
            return json.load(answer)["data"]["result"]

    deadline = time.monotonic() + TIMEOUT_S
    while not is_fed(_ask):
        assert time.monotonic() < deadline, "Prometheus has seen no metric of the job"
        time.sleep(1)
    yield _ask
    prometheus.terminate()
    prometheus.wait(timeout=30)


def is_fed(ask):
    try:
        return bool(ask("deriv(ray_raycrp_stage_rows[2m]) > 0"))
    except OSError:
        return False


def expressions():
    for path in sorted((DASHBOARDS / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield re.sub(r"\$\w+", ".*", target["expr"])


def test_every_panel_has_data(ask):
    asked = [text for text in expressions() if not any(name in text for name in ABSENT)]
    assert len(asked) > 40
    assert [text for text in asked if not ask(text)] == []


def test_every_part_of_every_alert_has_data(ask):
    rules = yaml.safe_load((DASHBOARDS / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        for name in re.findall(r"ray_raycrp_\w+", rule["expr"]):
            assert ask(name), rule["alert"]
