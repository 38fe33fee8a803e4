"""Prediction jobs with a real, untrained T5; one command line is killed for real."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exported_model import REACTIONS, write_model

from raycrp.choices import Device
from raycrp.errors import DataError, ModelError
from raycrp.evaluate import predict_job
from raycrp.evaluate.inputs import InputSource
from raycrp.evaluate.predict import Predictor
from raycrp.evaluate.predict_job import run_predict_job
from raycrp.evaluate.predict_settings import JobSettings, PredictSettings

pytestmark = pytest.mark.integration

SETTINGS = PredictSettings(
    "retrosynthesis", top_k=2, num_beams=3, num_reaction_types=2, max_output_tokens=8
)
NUM_ROWS = 23
BAD = {4: ("xx", "unparsable_molecule"), 9: ("CCO>>C", "arrow_unexpected"), 17: ("C" * 3_000, "")}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A file of SMILES, three of which are bad."""
    lines = ["C" * (i % 5) + REACTIONS[i % len(REACTIONS)][1] for i in range(NUM_ROWS)]
    for place, (text, _) in BAD.items():
        lines[place] = text
    path = tmp_path_factory.mktemp("inputs") / "molecules.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model_dir, inputs):
    """The output of a job that nothing happened to, carried out without Ray."""
    output = tmp_path_factory.mktemp("whole") / "answers.parquet"
    return output, run_job(model_dir, inputs, output)


def run_job(model_dir, inputs, output, *, settings=SETTINGS, **job):
    return run_predict_job(
        model_dir,
        InputSource(path=str(inputs)),
        output=output,
        file_format=None,
        settings=settings,
        job=JobSettings(**{"rows_per_block": 5, "num_actors": 0, "device": Device.CPU, **job}),
    )


def test_every_row_is_answered_or_rejected_by_name(whole):
    output, outcome = whole
    assert (outcome.num_answered, outcome.num_rejected) == (NUM_ROWS - len(BAD), len(BAD))
    answered = pq.read_table(output)["row"].to_pylist()
    rejects = pq.read_table(output.with_name("answers.rejects.parquet")).to_pylist()
    assert answered == [row for row in range(NUM_ROWS) if row not in BAD]
    assert [row["row"] for row in rejects] == list(BAD)
    assert rejects[0]["reject_reason"] == "unparsable_molecule"
    assert "23 rows = 20 answered + 3 rejected" in outcome.describe()


def test_two_actors_answer_as_one_process(whole, model_dir, inputs, local_ray, tmp_path):
    run_job(model_dir, inputs, tmp_path / "two.parquet", num_actors=2)
    assert pq.read_table(tmp_path / "two.parquet") == pq.read_table(whole[0])


def test_a_file_is_answered_as_one_by_one(whole, model_dir, inputs):
    predictor = Predictor(
        model_dir, device=Device.CPU, num_beams=3, num_reaction_types=2, max_output_tokens=8
    )
    for row in pq.read_table(whole[0]).to_pylist():
        (alone,) = predictor.predict(
            [row["input"]], task="retrosynthesis", top_k=2, round_trip=True
        )
        assert [answer["smiles"] for answer in row["answers"]] == [a.smiles for a in alone.answers]
        for stored, answer in zip(row["answers"], alone.answers, strict=True):
            assert stored["log_probability"] == pytest.approx(answer.log_probability, abs=1e-3)
            assert stored["passes_round_trip"] is answer.passes_round_trip


def test_a_broken_job_goes_on_from_its_blocks(whole, model_dir, inputs, tmp_path, monkeypatch):
    output = tmp_path / "answers.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(predict_job.PredictionTarget, "write", fail)
        with pytest.raises(OSError, match="no space"):
            run_job(model_dir, inputs, output)
    work = tmp_path / "answers.parquet.work"
    kept = work / "answers" / "shard-000000.parquet"
    written = kept.stat().st_mtime_ns
    (work / "answers" / "shard-000002.parquet").unlink()
    (work / "inputs.new").mkdir()
    (work / "inputs.new" / "part-000009.parquet").write_bytes(b"cut sho")
    assert not output.exists()
    with monkeypatch.context() as patch:
        patch.setattr(predict_job.PredictionTarget, "write", fail)
        with pytest.raises(OSError, match="no space"):
            run_job(model_dir, inputs, output)
    assert kept.stat().st_mtime_ns == written
    assert run_job(model_dir, inputs, output) == whole[1]
    assert pq.read_table(output) == pq.read_table(whole[0])
    assert sorted(path.name for path in work.iterdir()) == ["job.json"]


def fail(*_):
    raise OSError("no space left")


def test_the_same_command_again_does_nothing_and_another_is_refused(whole, model_dir, inputs):
    output, outcome = whole
    before = output.stat().st_mtime_ns
    assert run_job(model_dir, inputs, output) == outcome
    assert output.stat().st_mtime_ns == before
    other = PredictSettings("forward", max_output_tokens=8)
    with pytest.raises(DataError, match="there already"):
        run_job(model_dir, inputs, output, settings=other)
    assert output.stat().st_mtime_ns == before


def test_a_folder_gets_a_file_a_block(whole, model_dir, inputs, tmp_path):
    outcome = run_job(model_dir, inputs, tmp_path / "folder")
    assert outcome == whole[1]
    assert pq.read_table(tmp_path / "folder") == pq.read_table(whole[0])
    rejects = pq.read_table(tmp_path / "folder" / "_rejects")
    assert rejects["row"].to_pylist() == list(BAD)


def test_a_model_without_the_task_is_refused_before_any_work(model_dir, inputs, tmp_path):
    with pytest.raises(ModelError, match="unknown task 'retro'"):
        run_job(model_dir, inputs, tmp_path / "x.csv", settings=PredictSettings("retro"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.chaos
def test_a_killed_command_line_ends_with_the_same_rows(model_dir, inputs, tmp_path):
    def command(output):
        return [
            *[sys.executable, "-m", "raycrp", "predict", str(model_dir), "--task", "forward"],
            *["--input", str(inputs), "--output", str(output), "--rows-per-block", "1"],
            *["--max-output-tokens", "8", "--num-cpus", "2", "--num-actors", "2"],
        ]

    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment["RAY_ADDRESS"] = "local"
    subprocess.run(command(tmp_path / "whole.csv"), check=True, env=environment)
    for num_blocks in (2, 11, 20):
        driver = subprocess.Popen(command(tmp_path / "killed.csv"), env=environment)
        wait_for_blocks(tmp_path / "killed.csv.work" / "answers", num_blocks, driver)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert not (tmp_path / "killed.csv").exists()
    result = subprocess.run(
        command(tmp_path / "killed.csv"), check=True, env=environment, capture_output=True
    )
    assert b"23 rows = 20 answered + 3 rejected" in result.stdout
    assert read_csv(tmp_path / "killed.csv") == read_csv(tmp_path / "whole.csv")


MEASURE = """
import resource, sys
from pathlib import Path
from raycrp.choices import Device
from raycrp.evaluate.inputs import InputSource
from raycrp.evaluate.predict_job import run_predict_job
from raycrp.evaluate.predict_settings import JobSettings, PredictSettings

model, inputs, output = map(Path, sys.argv[1:])
outcome = run_predict_job(
    model,
    InputSource(path=str(inputs)),
    output=output,
    file_format=None,
    settings=PredictSettings("forward", top_k=1, num_beams=1, max_output_tokens=4),
    job=JobSettings(num_actors=1, num_cpus=2, device=Device.CPU),
)
print(outcome.num_answered, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_of_the_driver(model_dir, tmp_path):
    """Peak memory of the driver on 10,000 and 100,000 rows; each distinct input repeats."""
    texts = [f"{'C' * (i % 9)}{right}" for i in range(36) for _, right in REACTIONS]
    peaks = []
    for num_rows in (10_000, 100_000):
        path = tmp_path / f"{num_rows}.smi"
        with path.open("w") as stream:
            stream.writelines(f"{texts[i % len(texts)]} molecule-{i}\n" for i in range(num_rows))
        output = tmp_path / f"{num_rows}.parquet"
        command = [sys.executable, "-c", MEASURE, str(model_dir), str(path), str(output)]
        environment = os.environ | {"RAY_ADDRESS": "local"}
        result = subprocess.run(command, check=True, capture_output=True, env=environment)
        num_answered, peak = map(int, result.stdout.split()[-2:])
        assert num_answered == num_rows == pq.read_metadata(output).num_rows
        peaks.append(peak)
    sys.stdout.write(f"driver peak KiB: {peaks}, growth {peaks[1] / peaks[0] - 1:.3f}\n")
    assert peaks[1] < 1.1 * peaks[0]


def wait_for_blocks(folder: Path, num_blocks: int, driver):
    deadline = time.monotonic() + 300
    while len(list(folder.glob("*.parquet"))) < num_blocks:
        assert driver.poll() is None, "the job ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read_csv(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))
