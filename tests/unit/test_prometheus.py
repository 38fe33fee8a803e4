import math
import re

import pytest

from raycrp import prometheus
from raycrp.prometheus import METRICS, Kind, Metric


@pytest.fixture
def ray_metrics(monkeypatch):
    """As if Ray were running: what is set, by metric and tags."""
    seen = {}

    class Handle:
        def __init__(self, name):
            self._name = name

        def _put(self, value, tags):
            seen.setdefault((self._name, tuple(sorted(tags.values()))), []).append(value)

        def inc(self, value, tags):
            self._put(value, tags)

        def set(self, value, tags):
            self._put(value, tags)

        def observe(self, value, tags):
            self._put(value, tags)

    monkeypatch.setattr(prometheus, "_is_ray_running", lambda: True)
    monkeypatch.setattr(prometheus, "_handle", Handle)
    return seen


def test_names_units_and_descriptions_are_in_order():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"raycrp_[a-z_]+[a-z]", name)
        assert not name.endswith("_total")
        assert metric.unit
        assert metric.description[0].isupper()
        assert metric.tag_keys[0] == "run"
        assert bool(metric.boundaries) == (metric.kind is Kind.HISTOGRAM)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Kind.COUNTER, ("ray_x_total",)),
        (Kind.GAUGE, ("ray_x",)),
        (Kind.HISTOGRAM, ("ray_x_bucket", "ray_x_sum", "ray_x_count")),
    ],
)
def test_exported_names_follow_the_kind(kind, names):
    assert Metric("x", kind, "1", "X").exported_names == names


class TestWithoutRay:
    def test_nothing_happens(self):
        prometheus.set_gauge("raycrp_train_loss", 1.0, run="a")
        prometheus.count("raycrp_train_nonfinite_losses", run="a")
        prometheus.observe("raycrp_trial_seconds", 1.0, run="a")

    @pytest.mark.parametrize(
        ("function", "name", "tags"),
        [
            (prometheus.set_gauge, "raycrp_train_los", {"run": "a"}),
            (prometheus.set_gauge, "raycrp_train_nonfinite_losses", {"run": "a"}),
            (prometheus.count, "raycrp_train_loss", {"run": "a"}),
            (prometheus.observe, "raycrp_train_loss", {"run": "a"}),
            (prometheus.set_gauge, "raycrp_train_loss", {}),
            (prometheus.set_gauge, "raycrp_train_loss", {"run": "a", "task": "b"}),
        ],
    )
    def test_what_is_not_declared_is_refused_all_the_same(self, function, name, tags):
        with pytest.raises(ValueError, match=name):
            function(name, 1.0, **tags)

    def test_a_counter_cannot_go_down(self):
        with pytest.raises(ValueError, match="cannot go down"):
            prometheus.count("raycrp_train_nonfinite_losses", -1, run="a")


class TestWithRay:
    def test_values_that_are_not_finite_leave_a_gauge_alone(self, ray_metrics):
        for value in (math.nan, math.inf, 2):
            prometheus.set_gauge("raycrp_train_loss", value, run="a")
        assert ray_metrics == {("raycrp_train_loss", ("a",)): [2.0]}

    def test_a_line_of_the_training_log_becomes_gauges(self, ray_metrics):
        line = {"loss": 1.5, "samples_per_s": 20.0, "memory_gib": 2.0, "seconds": 9.0}
        scores = {"validation_loss_forward": 0.5, "validation_exact": 0.25}
        prometheus.set_training(7, {**line, **scores}, run="a")
        del ray_metrics["raycrp_stage_progress_time_seconds", ("a", "train")]
        assert ray_metrics == {
            ("raycrp_train_step", ("a",)): [7.0],
            ("raycrp_train_loss", ("a",)): [1.5],
            ("raycrp_train_samples_per_second", ("a",)): [20.0],
            ("raycrp_train_memory_bytes", ("a",)): [2.0 * 2**30],
            ("raycrp_train_validation_loss", ("a", "forward")): [0.5],
            ("raycrp_train_validation_exact", ("a", "all")): [0.25],
        }

    def test_a_loss_that_is_not_finite_is_counted(self, ray_metrics):
        prometheus.set_training(7, {"loss": math.nan, "validation_loss": 1.0}, run="a")
        assert ray_metrics["raycrp_train_nonfinite_losses", ("a",)] == [1.0]
        assert ray_metrics["raycrp_train_validation_loss", ("a", "all")] == [1.0]
        assert ("raycrp_train_loss", ("a",)) not in ray_metrics

    def test_a_round_of_a_trial_becomes_gauges(self, ray_metrics):
        line = {"task": "forward", "encoding": "concat", "num_clusters": 10, "round": 2}
        scores = {"accuracy": 0.8, "kappa": 0.7, "information_bits": 1.5, "effective_types": 9.5}
        prometheus.set_round({**line, **scores, "seconds": 3.0}, run="a")
        tags = tuple(sorted(("a", "forward", "concat", "10")))
        for name, value in scores.items():
            assert ray_metrics[f"raycrp_trial_{name}", tags] == [value]
        assert ray_metrics["raycrp_trial_round", tags] == [2.0]

    def test_a_stage_runs_until_its_block_ends(self, ray_metrics):
        with prometheus.stage_shown("embed", run="a"):
            prometheus.note_progress(run="a", stage="embed", rows=5, wanted=9)
        tags = ("a", "embed")
        assert ray_metrics["raycrp_stage_running", tags] == [1.0, 0.0]
        assert ray_metrics["raycrp_stage_rows", tags] == [5.0]
        assert ray_metrics["raycrp_stage_rows_wanted", tags] == [9.0]
        assert len(ray_metrics["raycrp_stage_seconds", tags]) == 1

    def test_a_stage_that_fails_has_no_seconds(self, ray_metrics):
        with pytest.raises(ZeroDivisionError), prometheus.stage_shown("embed", run="a"):
            raise ZeroDivisionError
        assert ray_metrics["raycrp_stage_running", ("a", "embed")] == [1.0, 0.0]
        assert ("raycrp_stage_seconds", ("a", "embed")) not in ray_metrics
