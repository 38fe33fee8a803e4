import pytest

from raycrp.config import load_config
from raycrp.plan import (
    Stage,
    describe_plan,
    finish_stage,
    needed_stages,
    stage_digests,
    stage_statuses,
    start_stage,
)
from raycrp.run import RunFolder


def digests(*overrides, inputs="i"):
    return stage_digests(load_config([], overrides), inputs_digest=inputs)


def changed_stages(*overrides, inputs="i"):
    before, after = digests(), digests(*overrides, inputs=inputs)
    return [stage.value for stage in Stage if before[stage] != after[stage]]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("report.num_examples=3", ["report"]),
        ("evaluate.num_beams=7", ["evaluate", "report"]),
        ("train.batch_size=64", ["train", "evaluate", "report"]),
        ("prompt.instruction=fixed", ["prompt", "train", "evaluate", "report"]),
        ("elicit.rule=floor", ["elicit", "annotate", "prompt", "train", "evaluate", "report"]),
        ("run.seed=1", [stage.value for stage in Stage]),
        ("run.name=other", []),
        ("run.storage=/elsewhere", []),
        ("train.num_workers=2", []),
        ("evaluate.num_actors=2", []),
    ],
)
def test_a_changed_setting_reruns_exactly_what_depends_on_it(override, expected):
    assert changed_stages(override) == expected


def test_changed_data_files_rerun_everything():
    assert changed_stages(inputs="other") == [stage.value for stage in Stage]


def test_needed_stages_are_in_order():
    assert needed_stages(Stage.EMBED) == [Stage.DATA, Stage.EMBED]
    assert needed_stages(Stage.REPORT) == list(Stage)


def test_a_stage_is_done_only_with_the_same_settings(tmp_path):
    config, run = load_config([]), RunFolder(str(tmp_path), "r")
    first = stage_statuses(config, run, inputs_digest="i")[0]
    assert not first.is_done
    assert not first.is_started
    start_stage(run, first)
    run.write_bytes("data/part", b"half")
    resumed = stage_statuses(config, run, inputs_digest="i")[0]
    assert resumed.is_started
    start_stage(run, resumed)
    assert run.exists("data/part")
    finish_stage(run, resumed, summary={"rows_in": 3})
    done = stage_statuses(config, run, inputs_digest="i")[0]
    assert done.is_done
    assert done.summary == {"rows_in": 3}
    other = stage_statuses(config, run, inputs_digest="j")[0]
    assert not other.is_done
    start_stage(run, other)
    assert not run.exists("data/part")


def test_a_stage_of_which_half_was_deleted_is_not_done(tmp_path, monkeypatch):
    run = RunFolder(str(tmp_path), "r")
    first, second = (
        stage_statuses(load_config([], [f"run.seed={seed}"]), run, inputs_digest="i")[0]
        for seed in (0, 1)
    )
    start_stage(run, first)
    run.write_bytes("data/part", b"whole")
    finish_stage(run, first, summary={})
    delete = RunFolder.delete

    def killed_in_between(self, relative):
        if relative == "data":
            delete(self, "data/part")
            raise KeyboardInterrupt
        delete(self, relative)

    monkeypatch.setattr(RunFolder, "delete", killed_in_between)
    with pytest.raises(KeyboardInterrupt):
        start_stage(run, second)
    back = stage_statuses(load_config([], ["run.seed=0"]), run, inputs_digest="i")[0]
    assert not back.is_done
    assert not back.is_started


def test_the_plan_says_what_is_done_and_what_it_takes(tmp_path):
    config = load_config([], [f"run.storage={tmp_path}", "embed.num_actors=3"])
    run = RunFolder(str(tmp_path), "demo")
    data = stage_statuses(config, run, inputs_digest="i")[0]
    finish_stage(run, data, summary={"rows_in": 20, "rows_out": 18})
    text = describe_plan(config, inputs_digest="i")
    table = [line.split() for line in text.splitlines()]
    assert ["data", "done", "20", "18", "all", "local", "CPUs"] in table
    assert any(line[:2] == ["embed", "run"] and line[4:6] == ["3", "actors"] for line in table)
