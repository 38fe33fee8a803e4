import pytest

from raycrp.run import RunFolder
from raycrp.train.session import LOCAL_DIR, LocalSession


@pytest.fixture
def save(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    session = LocalSession(run, num_checkpoints=2)

    def save(step):
        folder = tmp_path / f"part-{step}"
        folder.mkdir()
        (folder / "state").write_text(str(step))
        session.report({}, step=step, folder=folder)
        return [int(name.removeprefix("checkpoint_")) for name in run.list_names(LOCAL_DIR)]

    return save


def test_the_newest_checkpoints_are_kept(save):
    assert [save(step) for step in (10, 20, 30)] == [[10], [10, 20], [20, 30]]


def test_a_later_step_that_was_not_gone_on_from_takes_no_good_one_s_place(save):
    for step in (10, 20, 30):
        save(step)
    assert save(15) == [15]
    assert save(18) == [15, 18]
