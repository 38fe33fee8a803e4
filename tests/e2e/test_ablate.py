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
