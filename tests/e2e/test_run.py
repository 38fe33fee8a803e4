import shutil

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from raycrp.plan import Stage

pytestmark = pytest.mark.e2e

TABLES = [
    "elicit/trials.parquet",
    "annotate/test",
    "prompt/test",
    "evaluate/predictions",
    "evaluate/scores.parquet",
]


def tables_of(run):
    """The final tables, without the columns that hold times."""
    tables = {name: run.read_table(name) for name in TABLES}
    return {
        name: table.select([column for column in table.column_names if "seconds" not in column])
        for name, table in tables.items()
    }


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


def assert_ends_like(unbroken, killed):
    """The same command again finishes the killed run, with the tables of the unbroken one."""
    result = killed.run()
    assert result.returncode == 0, result.stderr[-4000:]
    assert tables_of(killed.run_folder) == tables_of(unbroken.run_folder)
