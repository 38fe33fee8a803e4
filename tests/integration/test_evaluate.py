"""The evaluate stage with a real, untrained T5 on prompts made up by hand."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from exported_model import NUM_TYPES, REACTIONS, write_model

from raycrp.choices import Task
from raycrp.config import Config
from raycrp.evaluate.predict import load_predictor
from raycrp.evaluate.prompt_job import choose_rows
from raycrp.evaluate.stage import run_evaluate
from raycrp.run import RunFolder
from raycrp.schemas import PREDICTIONS, PROMPTS, SCORES

pytestmark = pytest.mark.integration

NUM_REACTIONS = 20


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model_dir):
    """A run folder with the stage done once in this process, and its summary."""
    run = make_run(tmp_path_factory.mktemp("runs"), model_dir)
    return run, run_evaluate(settings(), run)


def make_run(folder, model_dir):
    run = RunFolder(str(folder), "run")
    rows = [row for i in range(NUM_REACTIONS) for row in prompt_rows(i)]
    run.write_table("prompt/test/shard-000000.parquet", pa.Table.from_pylist(rows, PROMPTS))
    known = [row | {"row_id": 1_000 + row["row_id"], "split": "validation"} for row in rows[:12]]
    run.write_table("prompt/validation/shard-000000.parquet", pa.Table.from_pylist(known, PROMPTS))
    shutil.copytree(model_dir, folder / "run" / "model")
    return run


def prompt_rows(number):
    left, right = REACTIONS[number % len(REACTIONS)]
    return [
        {
            "row_id": 10 * number + place,
            "reaction_key": f"key{number}",
            "task": task.value,
            "split": "test",
            "template_id": f"{task}-01",
            "reaction_type": number % NUM_TYPES,
            "rt_source": "predicted",
            "prompt": "unused",
            "input": left if task is Task.FORWARD else right,
            "output": right if task is Task.FORWARD else left,
            "mapped_reaction": None,
        }
        for place, task in enumerate((Task.FORWARD, Task.RETROSYNTHESIS))
    ]


def settings(**changes):
    base = {
        "num_beams": 3,
        "top_k": 3,
        "max_output_tokens": 12,
        "rows_per_shard": 16,
        "num_actors": 0,
        "num_resamples": 100,
    }
    return Config.model_validate({"evaluate": base | changes})


def predictions_of(run):
    return run.read_table("evaluate/predictions").sort_by("row_id")


def test_every_row_is_answered(whole):
    run, summary = whole
    assert (summary["rows_in"], summary["rows_out"], summary["rejected"]) == (40, 40, 0)
    answers = predictions_of(run)
    assert answers.schema == PREDICTIONS
    assert answers["row_id"].to_pylist() == sorted(
        row["row_id"] for i in range(NUM_REACTIONS) for row in prompt_rows(i)
    )
    assert {len(each) for each in answers["predictions"].to_pylist()} == {3}
    assert answers["reaction_type"].to_pylist()[:4] == [0, 0, 1, 1]
    for ranked in answers["log_probabilities"].to_pylist():
        assert ranked == sorted(ranked, reverse=True)
        assert ranked[0] < 0


def test_scores_are_written_three_ways(whole):
    run, summary = whole
    scores = run.read_table("evaluate/scores.parquet")
    assert scores.schema == SCORES
    assert set(scores["task"].to_pylist()) == {"forward", "retrosynthesis", "all"}
    assert run.read_json("evaluate/scores.json") == summary["scores"]
    text = run.read_bytes("evaluate/scores.md").decode()
    assert "- seed: 0" in text
    assert "| Exact top 3 |" in text
    assert "Exact top 5" not in text
    assert "| Coverage |" in text


def test_answers_to_retrosynthesis_are_asked_for_their_round_trip(whole):
    run, summary = whole
    for row in predictions_of(run).to_pylist():
        if row["task"] == "forward":
            assert row["round_trips"] is None
        else:
            assert len(row["round_trips"]) == len(row["predictions"])
    strict = summary["scores"]["retrosynthesis"]["strict"]
    assert strict["coverage"]["value"] >= strict["round_trip_top1"]["value"]
    assert "coverage" not in summary["scores"]["forward"]["strict"]
    assert "coverage" not in summary["scores"]["all"]["strict"]


def test_confidence_is_learned_on_validation_rows_and_kept_beside_the_model(whole):
    run, summary = whole
    curves = run.read_json("model/calibration.json")
    assert {task: curve["num_rows"] for task, curve in curves.items()} == {
        "forward": 6,
        "retrosynthesis": 6,
    }
    assert summary["confidence"]["forward"]["num_test_rows"] == NUM_REACTIONS
    predictor = load_predictor(run.path(), device="cpu", max_output_tokens=12)
    (prediction,) = predictor.predict(["CCO"], task="forward", top_k=1)
    (answer,) = prediction.answers
    assert answer.confidence is not None
    assert (0 < answer.confidence < 1) == answer.is_valid


def test_types_and_spellings_are_ranked_together(tmp_path, model_dir):
    run = make_run(tmp_path, model_dir)
    run_evaluate(settings(num_reaction_types=2, num_spellings=2, max_rows=4), run)
    answers = predictions_of(run).to_pylist()
    assert len(answers) == 8
    for row in answers:
        assert row["log_probabilities"] == sorted(row["log_probabilities"], reverse=True)
        assert len(set(row["predictions"])) == len(row["predictions"])


@pytest.mark.usefixtures("local_ray")
def test_actors_and_shards_change_nothing_and_rows_are_chosen(whole, tmp_path, model_dir):
    """Two actors answer other shards of five rows a task as one process did."""
    run = make_run(tmp_path, model_dir)
    summary = run_evaluate(settings(num_actors=2, rows_per_shard=6, max_rows=5), run)
    assert (summary["rows_out"], summary["not_sampled"]) == (10, 30)
    answers = predictions_of(run)
    assert answers["task"].to_pylist().count("forward") == 5
    assert texts_by_row(answers).items() <= texts_by_row(predictions_of(whole[0])).items()


def texts_by_row(table):
    texts = [tuple(each) for each in table["predictions"].to_pylist()]
    return dict(zip(table["row_id"].to_pylist(), texts, strict=True))


def test_another_seed_chooses_other_rows(tmp_path, model_dir):
    chosen = []
    for seed in (0, 1):
        run = make_run(tmp_path / str(seed), model_dir)
        source = choose_rows(run, max_rows=5, seed=seed)
        chosen.append(run.read_table(source)["row_id"].to_pylist())
    assert chosen[0] == sorted(chosen[0])
    assert chosen[0] != chosen[1]


def test_an_interrupted_stage_goes_on(whole, tmp_path):
    done, _ = whole
    shutil.copytree(done.path(), tmp_path / "run", symlinks=True)
    run = RunFolder(str(tmp_path), "run")
    run.delete("evaluate/predictions/shard-000001.parquet")
    run.delete("evaluate/scores.json")
    kept = Path(run.path("evaluate/predictions/shard-000000.parquet"))
    written = kept.stat().st_mtime_ns
    run_evaluate(settings(), run)
    assert predictions_of(run) == predictions_of(done)
    assert run.read_json("evaluate/scores.json") == done.read_json("evaluate/scores.json")
    assert kept.stat().st_mtime_ns == written


def test_a_call_in_python_answers_as_the_stage_does(whole):
    run, _ = whole
    predictor = load_predictor(run.path(), device="cpu", num_beams=3, max_output_tokens=12)
    stored = [row for row in predictions_of(run).to_pylist() if row["task"] == "forward"][:4]
    inputs = [row["input"] for row in stored]
    types = [row["reaction_type"] for row in stored]
    answered = predictor.predict(inputs, task="forward", top_k=3, reaction_types=types)
    assert [list(each.raw_answers) for each in answered] == [row["predictions"] for row in stored]
    assert [each.template_id for each in answered] == [row["template_id"] for row in stored]
    (single,) = predictor.predict(inputs[:1], task="forward", top_k=3)
    assert sum(single.reaction_type_probabilities) == pytest.approx(1, abs=1e-5)
    assert len(single.reaction_type_probabilities) == NUM_TYPES
