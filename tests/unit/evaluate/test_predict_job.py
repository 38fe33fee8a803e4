"""The job's order of work, with a stand-in for the model."""

import io
import json
import re
from contextlib import nullcontext

import pyarrow.parquet as pq
import pytest

from raycrp.choices import Device, OutputFormat, Task
from raycrp.errors import ClusterError, DataError
from raycrp.evaluate import predict_job as module
from raycrp.evaluate.answers import Answer, Prediction, Rejection
from raycrp.evaluate.inputs import InputSource
from raycrp.evaluate.predict_job import print_predictions, run_predict_job
from raycrp.evaluate.predict_settings import JobSettings, PredictSettings
from raycrp.prompt.templates import templates_text

SETTINGS = PredictSettings("forward")


class Predictor:
    """Answers every input with itself, but rejects those that begin with x."""

    def __init__(self, folder, **_):
        pass

    def predict(self, inputs, *, task, top_k, row_ids, round_trip):
        return [
            Prediction(text, Task.FORWARD, rejection=Rejection("bad", f"'{text}' is bad"))
            if text.startswith("x")
            else Prediction(text, Task.FORWARD, answers=(Answer(text, -1.0, True, True),))
            for text in inputs
        ]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Predictor", Predictor)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "raycrp.json").write_text(json.dumps({"format": 1, "tasks": ["forward"]}))
    (folder / "templates.yaml").write_text(templates_text())
    return folder


def run_job(model, source, output, *, num_actors=0):
    return run_predict_job(
        model,
        source,
        output=output,
        file_format=None,
        settings=SETTINGS,
        job=JobSettings(num_actors=num_actors, rows_per_block=2),
    )


def inputs_of(path):
    return [json.loads(line)["input"] for line in path.read_text().splitlines()]


def test_a_job_cut_off_while_it_takes_the_place_of_another_leaves_no_inputs_to_it(
    model, tmp_path, monkeypatch
):
    output = tmp_path / "out.jsonl"
    ours, others = InputSource(("C", "CC", "CCC")), InputSource(("N", "NN", "NNN"))

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_answer_blocks", fail)
        with pytest.raises(KeyboardInterrupt):
            run_job(model, ours, output)
    with monkeypatch.context() as patch:
        patch.setattr(module.RunFolder, "write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            run_job(model, others, output)
    run_job(model, ours, output)
    assert inputs_of(output) == ["C", "CC", "CCC"]


def test_each_actor_finds_the_model_of_a_uri_by_itself(model, tmp_path, monkeypatch):
    """A copy that the driver made would not be on other nodes."""
    (tmp_path / "run").mkdir()
    model.rename(tmp_path / "run" / "model")
    uri = (tmp_path / "run").as_uri()
    asked = {}

    def map_shards(*_, arguments, **__):
        asked.update(arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "map_shards", map_shards)
        run_job(uri, InputSource(("C",)), tmp_path / "other.jsonl")
    assert asked["model"] == uri
    run_job(uri, InputSource(("C",)), tmp_path / "out.jsonl")
    assert inputs_of(tmp_path / "out.jsonl") == ["C"]


def test_a_cluster_that_does_not_see_the_output_is_refused(model, tmp_path, monkeypatch):
    def check_storage(storage, *, what, is_remote_possible):
        raise ClusterError(f"{what} '{storage}' {is_remote_possible}")

    monkeypatch.setattr(module, "connected_ray", lambda num_cpus: nullcontext())
    monkeypatch.setattr(module.ray, "nodes", lambda: [{}, {}])
    monkeypatch.setattr(module, "check_storage", check_storage)
    expected = re.escape(f"the folder of --output '{tmp_path}' False")
    with pytest.raises(ClusterError, match=expected):
        run_job(model, InputSource(("C", "C", "C")), tmp_path / "out.jsonl", num_actors=1)


def test_an_output_among_the_inputs_is_refused(model, tmp_path):
    """The same command would answer its own answers when it is repeated."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "a.txt").write_text("C\n")
    with pytest.raises(DataError, match="lies in the folder of the inputs"):
        run_job(model, InputSource(path=str(folder)), folder / "deep" / "out.jsonl")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    run_job(model, InputSource(path=str(folder / "a.txt")), folder / "out.jsonl")
    assert inputs_of(folder / "out.jsonl") == ["C"]


def test_inputs_and_output_at_uris(model, tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "a.txt").write_text("C\nCC\nCCC\n")
    (folder / "empty.csv").write_bytes(b"")
    source, output = InputSource(path=f"file://{folder}"), f"file://{tmp_path}/out"
    with pytest.raises(DataError, match="lies in the folder of the inputs"):
        run_job(model, source, f"file://{folder}/deep/out")
    outcome = run_job(model, source, output)
    assert outcome == run_job(model, source, output)
    assert outcome.num_answered == 3
    assert outcome.without_rows == (f"file://{folder}/empty.csv",)
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [table["input"].to_pylist() for table in tables] == [["C", "CC"], ["CCC"]]
    (folder / "a.txt").write_text("C\n")
    with pytest.raises(DataError, match="out is there already"):
        run_job(model, source, output)


def test_rejected_rows_are_named_beside_what_is_printed(model):
    stream, problems = io.StringIO(), io.StringIO()
    print_predictions(
        model,
        InputSource(("C", "xx", "CC")),
        settings=SETTINGS,
        device=Device.CPU,
        file_format=OutputFormat.JSONL,
        stream=stream,
        problems=problems,
    )
    assert [json.loads(line)["row"] for line in stream.getvalue().splitlines()] == [0, 2]
    assert problems.getvalue() == "rejected: row 1: 'xx' is bad\n"
