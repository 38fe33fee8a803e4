"""What a finished run leaves and answers, and a killed one too; in one file for one process."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from raycrp.plan import Stage
from raycrp.schemas import Split

from .conftest import CONFIG, assert_ends_like

pytestmark = pytest.mark.e2e

HELD_OUT = (Split.VALIDATION, Split.TEST)


def test_a_run_leaves_every_stage_and_names_the_report(finished):
    command_line, result = finished
    run = command_line.run_folder
    for stage in Stage:
        summary = run.read_json(f"{stage}/_SUCCESS.json")["summary"]
        accounted = summary["rows_out"] + summary["rejected"] + summary.get("not_sampled", 0)
        assert summary["rows_in"] == accounted, stage
    lines = result.stdout.strip().splitlines()
    assert lines[-1] == f"report: {run.path('report/index.html')}"
    assert any("forward" in line and "|" in line for line in lines)


def test_the_report_needs_no_network(finished):
    command_line, _ = finished
    page = command_line.run_folder.read_bytes("report/index.html").decode()
    assert 'src="http' not in page
    assert "<link" not in page
    assert "@import" not in page


def test_the_model_folder_loads_by_transformers_alone(finished):
    command_line, _ = finished
    folder = command_line.run_folder.local_dir("model")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("CCO", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4).shape[0] == 1
    assert (folder / "README.md").is_file()


def test_the_same_command_again_does_nothing(finished):
    command_line, first = finished
    before = command_line.run_folder.read_bytes("report/_SUCCESS.json")
    result = command_line.run()
    assert result.returncode == 0
    assert f"done already: {', '.join(Stage)}" in result.stderr
    assert "ray:" not in result.stderr
    scores = first.stdout[first.stdout.index("# Scores") :]
    assert result.stdout.strip() == scores.strip()
    assert command_line.run_folder.read_bytes("report/_SUCCESS.json") == before


def test_predict_answers_from_the_run_folder(finished):
    command_line, _ = finished
    root = command_line.run_folder.path()
    result = command_line("predict", root, "CCO.CC(=O)O", "CCBr.N", "--task", "forward")
    assert result.returncode == 0, result.stderr
    assert "CCO" in result.stdout


@pytest.mark.parametrize(
    ("make_arguments", "fragment"),
    [
        (lambda folder: ["CCO", "--task", "forwards"], "unknown task 'forwards'"),
        (lambda folder: ["CCO", "--task", "reagent"], "trained for forward, retrosynthesis, not"),
        (lambda folder: ["--task", "forward"], "no inputs"),
        (lambda folder: ["--task", "forward", "--input", str(folder / "no.csv")], "no.csv"),
        (lambda folder: ["--task", "forward", "--input", _empty(folder)], "empty"),
        (lambda folder: ["CCO", "--task", "forward", "--format", "xls"], "expected one of"),
        (lambda folder: ["CCO", "--task", "forward", "--output", str(folder / "x.xls")], "'.xls'"),
    ],
)
def test_a_bad_prediction_is_one_clear_line(finished, tmp_path, make_arguments, fragment):
    command_line, _ = finished
    root = command_line.run_folder.path()
    result = command_line.here("predict", root, *make_arguments(tmp_path))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert fragment in last


def _empty(folder):
    (folder / "empty.csv").write_text("")
    return str(folder / "empty.csv")


def test_bad_molecules_are_named_and_the_others_are_answered(finished):
    command_line, _ = finished
    root = command_line.run_folder.path()
    inputs = ["CCO", "C1CC", "CCO>>CC", "C" * 10_000]
    result = command_line.here("predict", root, *inputs, "--task", "forward")
    assert result.returncode == 0
    assert result.stdout.count("rejected: ") == 3
    assert "forward: CCO" in result.stdout
    assert "4 rows = 1 answered + 3 rejected" in result.stderr
    assert command_line.here("predict", root, "C1CC", "--task", "forward").returncode == 2


def test_runs_compare_in_markdown_and_json(finished):
    command_line, _ = finished
    root = command_line.run_folder.path()
    shown = command_line.here("compare", root, root)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"# {root} against {root}")  # Their names tell nothing.
    assert "| Exact top 1 |" in shown.stdout
    written = command_line.here("compare", root, root, "--json")
    scores = json.loads(written.stdout)["scores"]
    difference = scores["forward"]["strict"]["exact_top1"]["difference"]
    assert difference == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("command", ["compare", "audit"])
def test_what_is_no_run_ends_in_one_line(finished, command):
    command_line, _ = finished
    missing = f"{command_line.storage}/missing"
    result = command_line.here(command, *([missing] * (2 if command == "compare" else 1)))
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "missing" in line


@pytest.mark.slow
def test_an_audit_goes_to_the_terminal_and_the_report(finished):
    command_line, _ = finished
    run = command_line.run_folder
    result = command_line("audit", run.path())
    assert result.returncode == 0, result.stderr[-4000:]
    assert "| oracle |" in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith("Over all tasks, RTs taken from")
    assert 'id="audit"' in run.read_bytes("report/index.html").decode()
    again = command_line("audit", run.path())
    assert again.stdout == result.stdout
    assert "done already" in again.stderr


def replace_outputs(run, split):
    """Every output of the split gives way to a chain that has nothing to do with its input."""
    random = np.random.default_rng(0)
    for name in run.list_names(f"data/rows/{split}"):
        path = f"data/rows/{split}/{name}"
        table = run.read_table(path)
        noise = ["".join(random.choice(list("CNO"), 12)) for _ in range(table.num_rows)]
        place = table.schema.get_field_index("output")
        noisy = table.set_column(place, table.schema.field("output"), pa.array(noise))
        run.write_table(path, noisy)


def test_annotations_of_held_out_rows_do_not_depend_on_their_outputs(finished, command_line):
    plain, noisy = finished[0].run_folder, command_line.run_folder
    shutil.copytree(plain.path("data"), noisy.path("data"))
    for split in HELD_OUT:
        replace_outputs(noisy, split)
    result = command_line(
        "annotate",
        str(CONFIG),
        f"run.storage={command_line.storage}",
        "embed.num_actors=0",
        "annotate.num_actors=0",
    )
    assert result.returncode == 0, result.stderr[-4000:]
    for split in HELD_OUT:
        before, after = (
            run.read_table(f"annotate/{split}").sort_by("row_id") for run in (plain, noisy)
        )
        assert before.num_rows > 0
        assert not set(before["output"].to_pylist()) & set(after["output"].to_pylist())
        assert before.drop_columns(["output"]).equals(after.drop_columns(["output"]))


@pytest.mark.chaos
def test_a_run_killed_while_it_predicts_ends_like_an_unbroken_one(finished, command_line):
    shutil.copytree(finished[0].storage / "tiny", command_line.storage / "tiny")
    for stage in (Stage.EVALUATE, Stage.REPORT):
        shutil.rmtree(command_line.run_folder.path(stage))
    command_line.run_and_kill("evaluate/predictions", delay_s=0)
    assert_ends_like(finished[0], command_line)


@pytest.mark.chaos
def test_a_run_killed_while_it_trains_ends_like_an_unbroken_one(finished, command_line):
    shutil.copytree(finished[0].storage / "tiny", command_line.storage / "tiny")
    for stage in (Stage.TRAIN, Stage.EVALUATE, Stage.REPORT):
        shutil.rmtree(command_line.run_folder.path(stage))
    shutil.rmtree(command_line.run_folder.path("model"))
    # The best weights appear with the first validation, after a quarter of the steps.
    command_line.run_and_kill("train/best", delay_s=0)
    assert_ends_like(finished[0], command_line)


@pytest.mark.chaos
def test_a_run_killed_in_every_stage_ends_like_an_unbroken_one(finished, command_line):
    for stage in Stage:
        command_line.run_and_kill(f"{stage}/_STARTED.json", delay_s=1.0)
    assert_ends_like(finished[0], command_line)
