from pathlib import Path

import pytest

from raycrp.ablate.paper import load_paper
from raycrp.ablate.trials import (
    Trial,
    describe_trial,
    list_trials,
    make_second_folder,
    make_trial_folder,
    parse_trial,
    second_config,
    trial_config,
)
from raycrp.choices import AblationRow, InstructionChoice, Task
from raycrp.config import Config, load_config
from raycrp.errors import ConfigError
from raycrp.plan import Stage, stage_digests
from raycrp.run import RunFolder

DEMO = Path(__file__).parents[3] / "tune_configs/demo_ablate.yaml"


def config(folder="runs", **sections):
    values = {"run": {"name": "base", "storage": str(folder)}, **sections}
    return Config.model_validate(values)


def test_there_is_a_model_for_each_task_row_and_seed():
    trials = list_trials(config(ablate={"seeds": [0, 7]}))
    assert len(trials) == len(set(trials)) == 2 * (3 * 4 + 2)
    assert {trial.group for trial in trials} == {*Task, "all"}
    assert [trial.seed for trial in trials] == [0] * 14 + [7] * 14
    assert len({trial.trial_id for trial in trials}) == len(trials)
    assert parse_trial(describe_trial(trials[3])) == trials[3]


def test_one_task_has_no_multi_task_models():
    trials = list_trials(config(data={"tasks": ["forward"]}, ablate={"seeds": [0]}))
    assert {trial.group for trial in trials} == {"forward"}


@pytest.mark.parametrize(
    ("row", "use_reaction_type", "instruction", "num_clusters"),
    [
        (AblationRow.NO_RT, False, InstructionChoice.NONE, (10,)),
        (AblationRow.RT, True, InstructionChoice.NONE, (10,)),
        (AblationRow.RT_IA, True, InstructionChoice.ADAPTIVE, (10,)),
        (AblationRow.RT_IA_SECOND, True, InstructionChoice.ADAPTIVE, (6,)),
    ],
)
def test_rows_differ_in_their_prompts_alone(row, use_reaction_type, instruction, num_clusters):
    base = config(elicit={"num_clusters": [10]})
    mine = trial_config(base, Trial("reagent", row, seed=5))
    assert mine.prompt.use_reaction_type is use_reaction_type
    assert mine.prompt.instruction is instruction
    assert mine.model_tasks == (Task.REAGENT,)
    assert mine.model_seed == 5
    assert mine.elicit.num_clusters == num_clusters
    assert (mine.run.seed, mine.train, mine.evaluate) == (base.run.seed, base.train, base.evaluate)


def test_shared_stages_have_the_digests_of_the_base():
    base = config(elicit={"num_clusters": [10]})
    digests = stage_digests(base, inputs_digest="d")
    multi = trial_config(base, Trial("all", AblationRow.RT_IA, seed=0))
    mine = stage_digests(multi, inputs_digest="d")
    before = (Stage.DATA, Stage.EMBED, Stage.ELICIT, Stage.ANNOTATE)
    assert all(mine[stage] == digests[stage] for stage in before)
    second = stage_digests(second_config(base), inputs_digest="d")
    assert second[Stage.EMBED] == digests[Stage.EMBED]
    assert second[Stage.ELICIT] != digests[Stage.ELICIT]
    other = trial_config(base, Trial("all", AblationRow.RT_IA_SECOND, seed=0))
    assert stage_digests(other, inputs_digest="d")[Stage.ANNOTATE] == second[Stage.ANNOTATE]


def test_trials_read_the_stages_of_the_base(tmp_path):
    base = config(tmp_path)
    run = RunFolder(str(tmp_path), "base")
    run.write_bytes("data/x", b"data")
    run.write_bytes("elicit/x", b"first")
    second = make_second_folder(base)
    second.write_bytes("elicit/x", b"second")
    first = make_trial_folder(base, Trial("all", AblationRow.RT_IA, seed=0))
    other = make_trial_folder(base, Trial("all", AblationRow.RT_IA_SECOND, seed=0))
    assert (first.read_bytes("data/x"), first.read_bytes("elicit/x")) == (b"data", b"first")
    assert (other.read_bytes("data/x"), other.read_bytes("elicit/x")) == (b"data", b"second")
    assert first.root == run.path("ablate/trials/all-rt_ia-seed0")


def test_the_paper_s_tables_are_those_of_the_paper():
    paper = load_paper()
    assert list(paper) == [*Task, "all"]
    assert [len(paper[task]) for task in Task] == [6, 6, 6]
    best = next(row for row in paper["retrosynthesis"] if row.row is AblationRow.RT_IA)
    assert best.scores["exact_match"] == 0.757
    plain = next(row for row in paper["retrosynthesis"] if row.row is AblationRow.NO_RT)
    assert plain.scores == {
        "bleu": 0.926,
        "meteor": 0.929,
        "exact_match": 0.663,
        "similarity": 0.858,
        "validity": 0.997,
    }
    (single,) = [row for row in paper["all"] if row.is_single]
    assert single.scores["exact_match"] == 0.586


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("ablate.seeds=[]", "at least one seed"),
        ("ablate.seeds=[1,1]", "each once"),
        ("prompt.tasks=[forward,forward]", "each once"),
    ],
)
def test_bad_settings_are_one_line_each(section, message):
    with pytest.raises(ConfigError, match=message):
        load_config([DEMO], [section])


def test_one_task_without_single_task_rows_has_no_models():
    settings = config(data={"tasks": ["forward"]}, ablate={"single_task_rows": []})
    with pytest.raises(ConfigError, match="no model to train"):
        list_trials(settings)


def test_a_model_cannot_learn_a_task_without_data():
    with pytest.raises(ConfigError, match=r"tasks of data.tasks \(forward\).*found reagent"):
        load_config([DEMO], ["data.tasks=[forward]", "prompt.tasks=[reagent]"])
