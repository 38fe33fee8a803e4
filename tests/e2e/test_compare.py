import json
import time

import pytest

from raycrp.ablate.trials import TRIALS_DIR
from raycrp.run import RunFolder

pytestmark = pytest.mark.e2e

SMALL = (
    "data.num_reactions=150",
    "elicit.encodings=[concat]",
    "elicit.num_clusters=[3,4]",
    "ablate.second_num_clusters=5",
    "ablate.single_task_rows=[no_rt,rt_ia_second]",
    "ablate.multi_task_rows=[rt_ia]",
    "ablate.seeds=[0,1]",
    "prompt.num_actors=0",
    "evaluate.num_actors=0",
    "evaluate.calibration_rows=0",
    "train.launcher=local",
    "train.max_steps=4",
)


def test_runs_compare_in_markdown_and_json(finished):
    command_line, _ = finished
    root = command_line.run_folder.path()
    shown = command_line.here("compare", root, root)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("# tiny against tiny")
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


@pytest.mark.slow
def test_a_killed_ablation_goes_on_with_the_models_that_are_missing(command_line):
    arguments = ("ablate", *command_line.tiny_config, *SMALL)
    command_line.start_and_kill(arguments, f"{TRIALS_DIR}/forward-no_rt-seed0/evaluate/scores.md")
    run = command_line.run_folder
    done = f"{TRIALS_DIR}/forward-no_rt-seed0/evaluate/scores.md"
    stamp = run.filesystem.get_file_info(run.path(done)).mtime_ns
    time.sleep(1)
    result = command_line(*arguments)
    assert result.returncode == 0, result.stderr[-4000:]
    assert run.filesystem.get_file_info(run.path(done)).mtime_ns == stamp
    tables = run.read_json("ablate/tables.json")["tables"]
    assert set(tables) == {"forward", "retrosynthesis", "all"}
    assert [(each["row"], len(each["steps"])) for each in tables["forward"]["models"]] == [
        ("no_rt", 2),
        ("rt_ia_second", 2),
    ]
    text = run.read_bytes("ablate/tables.md").decode()
    assert "| **RT+IA, N = 5** |" in text
    assert "| *paper: RT+IA, N = 6* | 0.989 |" in text
    trial = RunFolder(run.path(TRIALS_DIR), "retrosynthesis-no_rt-seed1")
    assert trial.read_json("model/raycrp.json")["tasks"] == ["retrosynthesis"]
    prompts = trial.read_table("prompt/test")
    assert set(prompts["task"].to_pylist()) == {"retrosynthesis"}
    assert prompts["prompt"][0].as_py() == f"retrosynthesis: {prompts['input'][0].as_py()}"
    summary = trial.read_json("prompt/_SUCCESS.json")["summary"]
    assert summary["rows_in"] == summary["rows_out"] + summary["not_sampled"]
    assert summary["not_sampled"] > 0
