import pyarrow as pa
import pytest

from raycrp.choices import Device, InstructionChoice, Task, TrainReactionType
from raycrp.errors import RunError
from raycrp.prompt.stage import PromptSettings, PromptWriter
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, PROMPTS, REACTION_TYPES, Split


def settings(**changes):
    values = {
        "instruction": InstructionChoice.FIXED,
        "use_reaction_type": True,
        "train_reaction_type": TrainReactionType.CLUSTER,
        "seed": 0,
        "device": Device.CPU,
        "token_budget": 1_024,
        "max_tokens": 128,
    }
    return PromptSettings(**values | changes)


def rows(*, split, predicted=(1, 2)):
    values = [
        {
            "row_id": row_id,
            "source_id": "s",
            "reaction_key": "k",
            "task": task.value,
            "split": split.value,
            "rt_split": None,
            "input": "CCO",
            "output": "CC=O",
            "mapped_reaction": None,
            "reaction_type": rt,
            "probabilities": [0.5, 0.5],
        }
        for row_id, task, rt in zip((10, 11), (Task.FORWARD, Task.REAGENT), predicted, strict=True)
    ]
    return pa.Table.from_pylist(values, schema=ANNOTATIONS)


@pytest.fixture
def run(tmp_path):
    """Clusters say 7 for row 10 and 8 for row 11."""
    run = RunFolder(str(tmp_path), "run")
    for row_id, task, label in ((10, Task.FORWARD, 7), (11, Task.REAGENT, 8)):
        table = pa.Table.from_pylist(
            [{"row_id": row_id, "task": task.value, "reaction_type": label}],
            schema=REACTION_TYPES,
        )
        run.write_table(f"elicit/reaction_types/{task}.parquet", table)
    return run


def prompts(run, *, split, **changes):
    made = PromptWriter(run, settings(**changes))(rows(split=split))
    assert made.schema.names == PROMPTS.names
    return made.cast(PROMPTS).to_pylist()


def test_training_rows_carry_the_cluster(run):
    first, second = prompts(run, split=Split.TRAIN)
    assert first["prompt"] == "Predict the product of this reaction. The reaction type is F7. CCO"
    assert second["prompt"].endswith("The reaction type is G8. CCO")
    assert (first["reaction_type"], first["rt_source"]) == (7, "cluster")


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_other_splits_carry_what_was_named_from_the_input(run, split):
    first, second = prompts(run, split=split)
    assert "type is F1. " in first["prompt"]
    assert "type is G2. " in second["prompt"]
    assert first["rt_source"] == second["rt_source"] == "predicted"


def test_training_rows_can_carry_what_folds_named(run):
    for task in (Task.FORWARD, Task.REAGENT):
        table = run.read_table(f"elicit/reaction_types/{task}.parquet")
        named = table.set_column(2, "reaction_type", pa.array([4], pa.int32()))
        run.write_table(f"elicit/cross_fitted/{task}.parquet", named)
    first, second = prompts(
        run, split=Split.TRAIN, train_reaction_type=TrainReactionType.CROSS_FITTED
    )
    assert (first["reaction_type"], first["rt_source"]) == (4, "cross_fitted")
    assert "type is G4. " in second["prompt"]


def test_training_rows_can_carry_the_prediction_too(run):
    first, _ = prompts(run, split=Split.TRAIN, train_reaction_type=TrainReactionType.PREDICTED)
    assert (first["reaction_type"], first["rt_source"]) == (1, "predicted")


def test_prompts_without_reaction_type(run):
    first, _ = prompts(run, split=Split.TRAIN, use_reaction_type=False)
    assert first["prompt"] == "Predict the product of this reaction. CCO"
    assert (first["reaction_type"], first["rt_source"]) == (None, "none")


def test_the_plain_control_is_the_task_and_the_input_alone(run):
    first, second = prompts(
        run, split=Split.TRAIN, use_reaction_type=False, instruction=InstructionChoice.NONE
    )
    assert (first["prompt"], second["prompt"]) == ("forward: CCO", "reagent: CCO")
    assert first["template_id"] == "forward-00"


def test_a_reaction_type_can_stand_without_an_instruction(run):
    first, _ = prompts(run, split=Split.TRAIN, instruction=InstructionChoice.NONE)
    assert first["prompt"] == "forward: The reaction type is F7. CCO"


def test_a_training_row_without_cluster_is_an_error(run):
    run.delete("elicit/reaction_types/reagent.parquet")
    with pytest.raises(RunError, match="lacks 1 training rows, first row_id 11"):
        prompts(run, split=Split.TRAIN)


def test_no_prompt_depends_on_the_output(run):
    writer = PromptWriter(run, settings(instruction=InstructionChoice.RANDOM))
    table = rows(split=Split.TEST)
    noise = table.set_column(
        table.schema.get_field_index("output"), "output", pa.array(["N#N", "[He]"])
    )
    assert writer(table)["prompt"] == writer(noise)["prompt"]
