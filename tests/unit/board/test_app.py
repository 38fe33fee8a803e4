"""The served page is made of few components, however many trials there are."""

from types import SimpleNamespace

import pytest

from raycrp.board.app import make_app
from raycrp.board.snapshot import Snapshot
from raycrp.board.sweep import build_sweep
from raycrp.config import Config


def layout_of(counts):
    settings = Config.model_validate(
        {"elicit": {"encodings": ["output", "concat"], "num_clusters": counts}}
    ).model_dump(mode="json")
    sweep = build_sweep(settings, lines=[], finished=(), started=(), is_over=False)
    snapshot = Snapshot(run_name="run", run_uri="/runs/run", settings=settings, sweep=sweep)
    app = make_app(SimpleNamespace(latest=lambda: (0, snapshot)))
    return app.layout()


def num_components(layout):
    return sum(1 for _ in layout._traverse())


@pytest.mark.parametrize("name", ["trials", "cards"])
def test_large_texts_are_no_components_but_shown_from_a_store(name):
    layout = layout_of([4, 6])
    assert layout[name].children is None
    assert layout["large-texts"].data[name]


def test_the_table_of_trials_names_each_trial_and_costs_no_components():
    few, many = layout_of([4, 6]), layout_of(list(range(2, 86)))
    assert num_components(few) == num_components(many)
    table = many["large-texts"].data["trials"]
    assert table.count("<tr") == 1 + 2 * 84
    assert "concat, N = 85" in table
