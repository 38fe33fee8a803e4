import json
import os
import time

import pyarrow as pa
import pytest

from raycrp.board.stages import stage_views
from raycrp.config import Config, dump_yaml
from raycrp.errors import RunError
from raycrp.run import RunFolder
from raycrp.status import describe_run, open_run, parse_run

NOW = 2_000_000_000.0


@pytest.fixture(autouse=True)
def at_noon(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def run(tmp_path):
    """A run folder with settings: three tasks, two encodings, two N."""
    run = RunFolder(str(tmp_path), "demo")
    config = Config.model_validate(
        {
            "elicit": {"encodings": ["output", "concat"], "num_clusters": [4, 6]},
            "train": {"max_epochs": 10, "num_workers": 2},
        }
    )
    run.write_bytes("config.yaml", dump_yaml(config).encode())
    return run


def start(run, stage, *, ago_s=0):
    run.write_json(f"{stage}/_STARTED.json", {"digest": stage})
    os.utime(run.path(f"{stage}/_STARTED.json"), (NOW - ago_s, NOW - ago_s))


def finish(run, stage, **summary):
    start(run, stage)
    run.write_json(f"{stage}/_SUCCESS.json", {"digest": stage, "summary": summary})


def write_rows(run, relative, num_rows):
    run.write_table(relative, pa.table({"row_id": list(range(num_rows))}))


def round_line(task, encoding, num_clusters, accuracy, *, number=0, bits=1.0):
    return {
        "trial_id": f"{task}-{encoding}-n{num_clusters}",
        "task": task,
        "encoding": encoding,
        "num_clusters": num_clusters,
        "round": number,
        "accuracy": accuracy,
        "majority_rate": 0.4,
        "kappa": 0.5,
        "information_bits": bits,
    }


def write_lines(run, relative, lines, *, rest=""):
    run.write_bytes(relative, ("".join(json.dumps(x) + "\n" for x in lines) + rest).encode())


def stage_line(text, stage):
    return next(line.split() for line in text.splitlines() if line.startswith(stage + " "))


def describe(run):
    return describe_run(run.storage, run.name)


class TestStages:
    def test_done_under_way_and_waiting(self, run):
        finish(run, "data", rows_in=100, rows_out=85, rejected=10, not_sampled=5, seconds=1.5)
        start(run, "embed")
        states = {view.stage.value: view.state for view in stage_views(run)}
        assert list(states.values()) == ["done", "under way", *["waiting"] * 6]
        assert stage_line(describe(run), "data") == ["data", "done", "100", "85", "10", "5", "1.5"]

    def test_a_stage_is_outdated_while_one_it_needs_runs_again(self, run):
        for stage in ("data", "embed", "elicit", "annotate"):
            finish(run, stage)
        run.delete("data")
        start(run, "data")
        states = {view.stage.value: view.state for view in stage_views(run)}
        assert states["data"] == "under way"
        assert [states[name] for name in ("embed", "elicit", "annotate")] == ["outdated"] * 3

    def test_rows_so_far_are_counted_from_the_shards(self, run):
        finish(run, "data")
        write_rows(run, "data/rows/train/part-00000.parquet", 50)
        write_rows(run, "data/rows/test/part-00000.parquet", 7)
        start(run, "embed", ago_s=90)
        write_rows(run, "embed/train/shard-000000.parquet", 20)
        write_rows(run, "embed/train/shard-000001.parquet", 5)
        os.utime(run.path("embed/train/shard-000001.parquet"), (NOW - 30, NOW - 30))
        os.utime(run.path("embed/train/shard-000000.parquet"), (NOW - 60, NOW - 60))
        text = describe(run)
        assert stage_line(text, "embed") == ["embed", "under", "way", "50", "25"]
        # 25 rows in 90 s, 25 to go.
        assert "embed: started 0:01:30 ago, last wrote 0:00:30 ago, about 0:01:30 left" in text

    def test_all_splits_count_where_all_are_worked_on(self, run):
        finish(run, "data")
        for split, num_rows in (("train", 50), ("validation", 3), ("test", 7)):
            write_rows(run, f"data/rows/{split}/part-00000.parquet", num_rows)
        start(run, "annotate")
        write_rows(run, "annotate/test/shard-000000.parquet", 7)
        assert stage_line(describe(run), "annotate")[-2:] == ["60", "7"]

    def test_answers_count_against_the_rows_that_are_evaluated(self, run):
        finish(run, "prompt")
        write_rows(run, "prompt/test/shard-000000.parquet", 40)
        start(run, "evaluate", ago_s=60)
        write_rows(run, "evaluate/validation_rows/part-00000.parquet", 10)
        write_rows(run, "evaluate/validation/shard-000000.parquet", 10)
        write_rows(run, "evaluate/predictions/shard-000000.parquet", 20)
        text = describe(run)
        assert stage_line(text, "evaluate")[-2:] == ["50", "30"]
        # 30 rows in 60 s, 20 to go.
        assert "about 0:00:40 left" in text
        settings = run.read_bytes("config.yaml").decode()
        run.write_bytes(
            "config.yaml", settings.replace("  max_rows: null", "  max_rows: 8").encode()
        )
        write_rows(run, "evaluate/rows/part-00000.parquet", 24)
        assert stage_line(describe(run), "evaluate")[-2:] == ["34", "30"]


class TestSweep:
    def test_trials_time_left_and_the_best_of_each_task(self, run):
        start(run, "elicit", ago_s=60)
        for name in ("forward-output-n4", "forward-concat-n4", "reagent-output-n4"):
            run.write_json(f"elicit/tune/done/{name}.json", {})
        rounds = [
            round_line("forward", "output", 4, 0.70),
            round_line("forward", "concat", 4, 0.80, number=0),
            round_line("forward", "concat", 4, 0.91, number=1),
            round_line("forward", "concat", 4, 0.85, number=2),
            round_line("reagent", "output", 4, 0.60),
            round_line("reagent", "output", 6, 0.50),
        ]
        write_lines(run, "elicit/rounds.jsonl", rounds, rest='{"trial_id": "cut')
        text = describe(run)
        assert "elicit: 3 of 12 trials done, 1 running, about 0:03:00 left" in text
        assert "best by accuracy: concat, N=4: accuracy 0.910" in text
        assert text.count("round 1") == 1
        assert "  reagent         best by accuracy: output, N=4" in text
        assert "retrosynthesis" not in text

    def test_the_rule_of_the_run_names_the_best(self, run):
        settings = run.read_bytes("config.yaml").decode()
        run.write_bytes("config.yaml", settings.replace("rule: accuracy", "rule: floor").encode())
        start(run, "elicit")
        rounds = [round_line("forward", "concat", 4, 0.9), round_line("forward", "output", 6, 0.75)]
        write_lines(run, "elicit/rounds.jsonl", rounds)
        assert "best by floor: output, N=6: accuracy 0.750" in describe(run)

    def test_nothing_yet_is_no_error(self, run):
        start(run, "elicit")
        assert "elicit: 0 of 12 trials done" in describe(run)


class TestTraining:
    def write(self, run, *lines):
        write_lines(run, "train/metrics.jsonl", lines)

    def test_step_losses_workers_and_time_left(self, run):
        start(run, "train")
        self.write(
            run,
            {"step": 10, "seconds": 20, "loss": 3.0, "epoch": 0.5, "samples_per_s": 100.0},
            {"step": 20, "seconds": 25, "validation_loss": 2.5},
            {"step": 30, "seconds": 60, "validation_loss": 2.7},
            {"step": 40, "seconds": 80, "loss": 2.0, "epoch": 2.0, "samples_per_s": 123.4},
        )
        text = describe(run)
        # 20 steps an epoch, 8 epochs to go, 30 steps in 60 s.
        assert (
            "train: step 40, epoch 2.00 of 10, loss 2.0000, 123.4 rows/s, 2 workers, "
            "at most 0:05:20 left"
        ) in text
        assert "validation loss 2.7000 at step 30, best 2.5000 at step 20" in text

    def test_the_step_that_is_kept_is_by_the_rule_of_the_run(self, run):
        start(run, "train")
        settings = run.read_bytes("config.yaml").decode()
        assert "  select_by: loss" in settings
        run.write_bytes(
            "config.yaml", settings.replace("select_by: loss", "select_by: exact").encode()
        )
        self.write(
            run,
            {"step": 20, "seconds": 25, "validation_loss": 2.5, "validation_exact": 0.25},
            {"step": 30, "seconds": 60, "validation_loss": 2.7, "validation_exact": 0.5},
            {"step": 40, "seconds": 90, "validation_loss": 2.6, "validation_exact": 0.375},
        )
        assert (
            "  validation exact 0.375, loss 2.6000 at step 40, "
            "best exact 0.500, loss 2.7000 at step 30"
        ) in describe(run)

    def test_workers_now_come_from_the_metrics_where_they_are_there(self, run):
        start(run, "train")
        step = {"step": 1, "seconds": 1, "loss": 1.0, "epoch": 1.0, "samples_per_s": 1.0}
        self.write(run, {**step, "workers": 1})
        assert "1.0 rows/s, 1 worker\n" in describe(run) + "\n"

    def test_restarts_and_what_they_cost_are_told(self, run):
        start(run, "train")
        self.write(run, {"step": 50, "seconds": 9, "validation_loss": 2.5})
        restart = {"step_reached": 40, "step_resumed": 30, "num_workers": 2, "seconds": 17.2}
        again = {"step_reached": 45, "step_resumed": 42, "num_workers": 1, "seconds": 60.0}
        lines = [{"time": NOW - 900, **restart}, {"time": NOW - 120, **again}]
        write_lines(run, "train/restarts.jsonl", lines)
        assert (
            "  workers started anew 2 times, 13 steps done again; last 0:02:00 ago: from step 42 "
            "with 1 worker, 0:01:00 after the last step before it"
        ) in describe(run)

    def test_validations_alone_show_the_step(self, run):
        start(run, "train")
        self.write(run, {"step": 7, "seconds": 1, "validation_loss": 3.0})
        assert "train: step 7\n  validation loss 3.0000 at step 7" in describe(run)

    def test_a_long_log_is_thinned_but_keeps_its_best_and_its_last_line(self, run):
        start(run, "train")
        lines = [{"step": n, "seconds": n, "validation_loss": 2.0} for n in range(1, 20_001)]
        lines[7]["validation_loss"] = 1.5
        write_lines(run, "train/metrics.jsonl", lines)
        text = describe(run)
        assert "train: step 20000" in text
        assert "validation loss 2.0000 at step 20000, best 1.5000 at step 8" in text


class TestSearch:
    def test_each_trial_is_told_of(self, run):
        settings = run.read_bytes("config.yaml").decode()
        points = "  search: {learning_rate: [0.001, 0.0001], batch_size: [8, 16]}"
        assert "  search: null" in settings
        run.write_bytes("config.yaml", settings.replace("  search: null", points).encode())
        start(run, "train")
        folder = "train/search/rate-{}-batch-{}/train"
        losses = {("0.001", 8): 2.0, ("0.001", 16): 1.5, ("0.0001", 8): 3.0}
        for (rate, batch), loss in losses.items():
            step = {"step": 20, "seconds": 2, "loss": 2.0, "epoch": 1.0, "samples_per_s": 9.0}
            lines = [step, {"step": 10, "seconds": 1, "validation_loss": loss}]
            write_lines(run, f"{folder.format(rate, batch)}/metrics.jsonl", lines)
        run.write_json(f"{folder.format('0.001', 8)}/result.json", {})
        run.write_json(f"{folder.format('0.0001', 8)}/stopped.json", {})
        text = describe(run)
        assert (
            "train: search over step size and batch: 2 of 4 trials done "
            "(1 of them stopped early), 1 running\n"
            "  best rate-0.001-batch-16: validation loss 1.5000 at step 10, running\n"
            "  running rate-0.001-batch-16: step 20"
        ) in text


@pytest.mark.parametrize(
    ("text", "storage", "name"),
    [
        ("runs/demo", "runs", "demo"),
        ("runs/demo/", "runs", "demo"),
        ("demo", ".", "demo"),
        ("/demo", "/", "demo"),
        ("s3://bucket/raycrp/demo", "s3://bucket/raycrp", "demo"),
        ("s3://bucket/demo", "s3://bucket", "demo"),
        ("s3://bucket/raycrp/demo/?region=x/y", "s3://bucket/raycrp?region=x/y", "demo"),
    ],
)
def test_a_run_is_named_by_one_path_or_uri(text, storage, name):
    assert parse_run(text) == RunFolder(storage, name)


@pytest.mark.parametrize("text", ["", "/", "s3://bucket", "s3://bucket?region=x"])
def test_what_names_no_run_is_refused(text):
    with pytest.raises(RunError, match="is no run folder"):
        parse_run(text)


@pytest.mark.parametrize("error", [PermissionError("no right\nhere"), OSError("no network")])
def test_storage_that_does_not_answer_is_one_line(monkeypatch, error):
    def fail(self, relative=""):
        raise error

    monkeypatch.setattr(RunFolder, "exists", fail)
    with pytest.raises(RunError, match=r"^'demo' in runs cannot be opened: no (right|network)$"):
        open_run("runs/demo")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match=f"no run at {tmp_path}/none"):
        describe_run(str(tmp_path), "none")
