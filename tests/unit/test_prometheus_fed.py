"""Every declared metric is fed: by a call in a stage, or by a function that sets several."""

import ast
from pathlib import Path

import pytest

import raycrp
from raycrp import prometheus
from raycrp.prometheus import METRICS, TRAINING

PACKAGE = Path(raycrp.__file__).parent
SETTERS = {"set_gauge", "count", "observe"}


def sources(folder=""):
    return [p for p in (PACKAGE / folder).rglob("*.py") if p != PACKAGE / "prometheus.py"]


def calls():
    """Name of the function and its first argument where that is a text, outside of that module."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                first = node.args[0] if node.args else None
                yield name, first.value if isinstance(first, ast.Constant) else None


CALLS = set(calls())
CALLED = {name for name, _ in CALLS}


@pytest.fixture
def fed(monkeypatch):
    """Metrics set while it is in use."""
    seen = set()

    def note(name, *_values, **_tags):
        seen.add(name)

    for setter in SETTERS:
        monkeypatch.setattr(prometheus, setter, note)
    return seen


def feed_stage():
    with prometheus.stage_shown("embed", run="a"):
        prometheus.note_progress(run="a", stage="embed", rows=1, wanted=2, rejected=1)


def feed_training():
    values = dict.fromkeys(TRAINING, 1.0) | {"loss": float("nan"), "memory_gib": 1.0}
    prometheus.set_training(
        1, {**values, "validation_loss_forward": 1.0, "validation_exact": 0.0}, run="a"
    )
    prometheus.set_training(1, {"loss": 1.0}, run="a")


def feed_limits():
    prometheus.set_training_limits(
        workers_wanted=2, checkpoint_interval_s=1.0, least_loss_scale=1.0, run="a"
    )


def feed_round():
    names = ("task", "encoding", "num_clusters", "round")
    scores = ("accuracy", "kappa", "information_bits", "effective_types")
    prometheus.set_round(dict.fromkeys([*names, *scores], 1), run="a")


FEEDERS = {
    "stage_shown": feed_stage,
    "note_progress": feed_stage,
    "set_training": feed_training,
    "set_training_limits": feed_limits,
    "set_round": feed_round,
}


def test_every_metric_is_fed(fed):
    for name, feed in FEEDERS.items():
        if name in CALLED:
            feed()
    fed |= {first for name, first in CALLS if name in SETTERS and first in METRICS}
    assert sorted(METRICS.keys() - fed) == []


def test_functions_that_set_several_are_called_by_the_stages():
    assert sorted(FEEDERS.keys() - CALLED) == []


def test_what_the_training_log_feeds_is_measured():
    texts = {
        node.value
        for path in sources("train")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sorted(TRAINING.keys() - texts) == []


@pytest.mark.parametrize("stage", ["data", "embed", "annotate", "prompt", "evaluate"])
def test_stages_that_work_row_by_row_say_how_far_they_are(stage):
    texts = [path.read_text() for path in sources(stage)]
    assert any("note_progress(" in text or "map_shards(" in text for text in texts)
