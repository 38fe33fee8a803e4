"""The board as a file, and what its parts say; text and figures are read from the page itself."""

import json
import re
from dataclasses import replace

import pytest

from raycrp.board.cards import card_children
from raycrp.board.export import export_board, render_board
from raycrp.board.figures import METRICS, heat_figure, lines_figure, workers_figure
from raycrp.board.search import SearchTrialView, SearchView
from raycrp.board.snapshot import Snapshot
from raycrp.board.stages import StageView
from raycrp.board.sweep import TrialState, build_sweep
from raycrp.board.training import TrainingView
from raycrp.board.view import empty_sweep, empty_training, header_children
from raycrp.choices import SelectBy
from raycrp.config import Config, dump_yaml
from raycrp.plan import Stage
from raycrp.run import RunFolder
from raycrp.train.restarts import Restart

SETTINGS = Config.model_validate(
    {
        "data": {"tasks": ["forward", "reagent"]},
        "elicit": {"encodings": ["output", "concat"], "num_clusters": [4, 6], "rule": "floor"},
        "train": {"max_epochs": 4},
    }
).model_dump(mode="json")


def line(task, encoding, count, accuracy):
    return {
        "trial_id": f"{task}-{encoding}-n{count}",
        "task": task,
        "encoding": encoding,
        "num_clusters": count,
        "round": 0,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.05,
        "accuracy_high": accuracy + 0.05,
        "majority_rate": 0.25,
        "kappa": 0.5,
        "information_bits": 1.25,
        "effective_types": 3.5,
        "smallest_share": 0.125,
        "seconds": 3.0,
    }


@pytest.fixture
def sweep():
    lines = [
        line("forward", "output", 4, 0.60),
        line("forward", "concat", 4, 0.90),
        line("forward", "concat", 4, 0.85) | {"round": 1},
        line("forward", "concat", 6, 0.72),
        line("reagent", "output", 4, 0.81),
    ]
    done = {"forward-output-n4", "forward-concat-n4"}
    return build_sweep(SETTINGS, lines=lines, finished=done, started=(), is_over=False)


@pytest.fixture
def snapshot(sweep):
    steps = [
        {"step": n, "seconds": n, "loss": 2.0, "epoch": n / 10, "samples_per_s": 5.0, "workers": 3}
        for n in (10, 20)
    ]
    validations = [
        {"step": 20, "seconds": 21, "validation_loss": 1.5, "validation_loss_forward": 1.4}
    ]
    card = {
        "task": "forward",
        "reaction_type": 2,
        "name": "ester <formation>",
        "size": 1234,
        "share": 0.25,
        "frequent_changes": [{"name": "ester gained", "share": 0.875}],
        "specific_changes": [{"name": "C-O formed", "lift": 6.25}],
        "central": ["CC(=O)O.CO>>CC(=O)OC"],
    }
    stages = [StageView(stage, "under way", {}, 0.0) for stage in (Stage.ELICIT, Stage.TRAIN)]
    return Snapshot(
        run_name="demo <run>",
        run_uri="/runs/demo",
        settings=SETTINGS,
        stages=stages,
        sweep=sweep,
        cards=[card],
        training=TrainingView(steps, validations),
    )


def text_of(page):
    body = page[page.index("<body>") : page.index("<script>")]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


class TestPage:
    def test_it_needs_no_network_and_escapes_what_it_shows(self, snapshot):
        page = render_board(snapshot)
        own = page[: page.index("<script>")] + page[page.index('id="board-data"') :]
        assert 'src="http' not in own
        assert '<link rel="icon" href="data:,">' in own
        assert "@import" not in own
        assert "demo &lt;run&gt;" in own
        assert "<formation>" not in own
        assert "plotly.js v" in page

    def test_it_says_what_the_rule_picks_and_how_things_stand(self, snapshot):
        text = text_of(render_board(snapshot))
        assert "Present choice rule: floor concat, N = 6" in text
        assert "Largest N whose accuracy is at least 0.70: 0.720. No larger N" in text
        assert "2 of 8" in text
        assert "2 running, 2 done, 4 waiting" in text
        assert "RT 2 ester &lt;formation&gt; 1,234 rows, 25 %" in text
        assert "ester gained 88 %" in text
        assert "C-O formed \N{MULTIPLICATION SIGN}6.2" in text
        assert "training step 20 epoch 2.00 of 4" in text
        assert "lowest validation loss 1.5000 at step 20" in text

    def test_every_trial_has_its_row_and_its_rounds(self, snapshot):
        page = render_board(snapshot)
        rows = re.findall(r"<tr.*?</tr>", page[: page.index("<script>")])
        names = [re.sub(r"<[^>]+>", "", row.partition("</th>")[0]) for row in rows[1:]]
        assert sorted(names) == sorted(
            ["output, N = 4", "output, N = 6", "concat, N = 4", "concat, N = 6"]
        )
        [row] = [row for row in rows if "concat, N = 4" in row]
        assert 'alt="accuracy by round: 0.900, 0.850"' in row

    def test_its_data_holds_a_figure_for_each_task_and_metric(self, snapshot):
        page = render_board(snapshot)
        data = json.loads(re.search(r'id="board-data">(.*?)</script>', page).group(1))
        assert set(data["sweep"]) == {"forward", "reagent"}
        assert set(data["sweep"]["reagent"]) == set(METRICS)
        assert "output, N = 4" in data["parts"]["reagent"]["choice"]

    def test_an_empty_run_is_shown_kindly(self):
        text = text_of(render_board(Snapshot("demo", "/runs/demo")))
        assert "This run folder is empty so far" in text
        assert "Training has not started" in text

    def test_it_is_written_beside_the_report_with_that_stage_done(self, tmp_path):
        run = RunFolder(str(tmp_path), "demo")
        run.write_bytes("config.yaml", dump_yaml(Config.model_validate(SETTINGS)).encode())
        run.write_json("report/_STARTED.json", {})
        assert export_board(run) == len(run.read_bytes("report/board.html"))
        assert b'class="stage done"' in run.read_bytes("report/board.html")


class TestFigures:
    def test_the_heat_map_has_a_cell_for_each_trial(self, sweep):
        figure = heat_figure(sweep, task="forward", metric=METRICS["accuracy"])
        [heat] = figure["data"]
        assert (heat["y"], heat["x"]) == (["output", "concat"], ["4", "6"])
        assert heat["z"] == [[0.6, None], [0.9, 0.72]]
        texts = {(a["x"], a["y"]): a["text"] for a in figure["layout"]["annotations"]}
        ellipsis = "\N{HORIZONTAL ELLIPSIS}"
        assert texts == {(0, 0): "0.60", (0, 1): "0.90", (1, 1): f"0.72 {ellipsis}"}
        box = figure["layout"]["shapes"][0]
        assert (box["x0"], box["x1"], box["y0"], box["y1"]) == (0.5, 1.5, 0.5, 1.5)

    def test_the_lines_are_those_of_the_papers_figure(self, sweep):
        figure = lines_figure(sweep, task="forward", metric=METRICS["accuracy"])
        lines = {trace["name"]: (trace["x"], trace["y"]) for trace in figure["data"]}
        assert lines["concat"] == ([4, 6], [0.9, 0.72])
        assert lines["concat, commonest type"] == ([4, 6], [0.25, 0.25])
        assert lines["chosen"] == ([6], [0.72])
        assert figure["layout"]["shapes"][0]["y0"] == 0.7

    def test_every_encoding_has_its_own_colour_sign_and_dash(self):
        names = ["output", "difference", "concat", "inner_product", "fingerprint", "change"]
        settings = {**SETTINGS, "elicit": {**SETTINGS["elicit"], "encodings": names}}
        lines = [line("forward", name, 4, 0.8) for name in names]
        sweep = build_sweep(settings, lines=lines, finished=(), started=(), is_over=False)
        traces = lines_figure(sweep, task="forward", metric=METRICS["kappa"])["data"][:-1]
        styles = {(t["line"]["color"], t["marker"]["symbol"], t["line"]["dash"]) for t in traces}
        assert [len({s[i] for s in styles}) for i in range(3)] == [6, 6, 6]

    def test_a_loss_that_is_not_finite_leaves_a_gap(self, snapshot):
        broken = {**snapshot.training.steps[0], "workers": float("nan")}
        figure = workers_figure(TrainingView([broken, snapshot.training.steps[1]]))
        assert figure["data"][0]["y"] == [3]

    def test_a_figure_without_a_point_says_so(self, snapshot):
        [note] = workers_figure(TrainingView())["layout"]["annotations"]
        assert note["text"] == "nothing in the log yet"
        assert "annotations" not in workers_figure(snapshot.training)["layout"]


class TestHead:
    def test_restarts_are_told_and_validations_stand_alone(self, snapshot):
        restarts = [Restart(1.0, 40, 30, 2, 9.0), Restart(2.0, 45, 42, 1, 9.0)]
        log = TrainingView((), [{"step": 7, "validation_loss": 2.5}])
        text = json.dumps(
            header_children(replace(snapshot, training=log, restarts=restarts)),
            default=lambda part: part.to_plotly_json(),
        )
        texts = re.findall(r'"children": "([^"]*)"', text)
        at = texts.index("lowest validation loss")
        assert texts[at:] == [
            *("lowest validation loss", "2.5000", "at step 7"),
            *("restarts", "2", "13 steps done again"),
        ]

    def test_the_best_validation_is_told_by_what_makes_it_the_best(self, snapshot):
        lines = [
            {"step": 7, "validation_loss": 2.5, "validation_exact": 0.5},
            {"step": 8, "validation_loss": 2.0, "validation_exact": 0.25},
        ]
        log = TrainingView((), lines, select_by=SelectBy.EXACT)
        text = json.dumps(
            header_children(replace(snapshot, training=log)),
            default=lambda part: part.to_plotly_json(),
        )
        texts = re.findall(r'"children": "([^"]*)"', text)
        at = texts.index("highest validation exact match")
        assert texts[at + 1 : at + 3] == ["0.500", "at step 7"]


class TestCards:
    @pytest.mark.parametrize(
        ("central", "num_pictures"),
        [
            ([f"{'C' * 200}>>{'C' * 200}", "CCO>>CC=O"], 2),
            (["CCO.O.O.O.O>>CC=O", "CCO.O.O>>CC=O", "CCO>>CC=O"], 4),
            (["CCO.O.O.O.O>>CC=O", "CCO.O.O.O>>CC=O", "CCO.O.O.O>O>CC=O.O"], 5),
        ],
        ids=["too large to draw", "nearest of few molecules", "fewest molecules"],
    )
    def test_a_central_reaction_is_drawn(self, central, num_pictures):
        card = {"task": "forward", "reaction_type": 0, "size": 1, "central": central}
        shown = card_children(Snapshot("r", "r", cards=[card]), task="forward")
        text = json.dumps(shown, default=lambda part: part.to_plotly_json())
        assert text.count("data:image/svg") == num_pictures


class TestEmpty:
    def test_each_moment_before_the_first_result_has_its_word(self, snapshot):
        bare = replace(snapshot, sweep=replace(snapshot.sweep, trials=()), training=TrainingView())
        assert "The sweep has started" in empty_sweep(bare)
        assert "has not started" in empty_sweep(replace(bare, stages=()))
        assert "is empty so far" in empty_sweep(replace(bare, settings={}))
        assert "Training has started" in empty_training(bare)
        assert "has not started" in empty_training(replace(bare, stages=()))
        best = {"step": 10, "validation_loss": 1.5}
        trials = [
            SearchTrialView("rate-0.1-batch-8", TrialState.RUNNING, 20, best),
            SearchTrialView(
                "rate-1-batch-8", TrialState.STOPPED, 10, best | {"validation_loss": 2}
            ),
        ]
        assert empty_training(replace(bare, search=SearchView(trials))) == (
            "Searching step size and batch: 1 of 2 trials done. "
            "Lowest validation loss so far 1.5000, rate-0.1-batch-8."
        )
        by_exact = [
            replace(trials[0], best=best | {"validation_exact": 0.25}),
            replace(trials[1], best=best | {"validation_exact": 0.5}),
        ]
        search = SearchView(by_exact, SelectBy.EXACT)
        assert empty_training(replace(bare, search=search)).endswith(
            "Highest validation exact match so far 0.500, rate-1-batch-8."
        )
        assert (empty_sweep(snapshot), empty_training(snapshot)) == ("", "")
