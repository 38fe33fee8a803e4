import threading

import pytest

from raycrp.errors import RunError
from raycrp.run import RunFolder
from raycrp.train.storage import wait_for_storage


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    run.write_json("prompt/llm_crp/config.json", {})
    return run


def test_storage_that_comes_back_is_waited_for(run, tmp_path, caplog):
    (tmp_path / "run").rename(tmp_path / "away")
    (tmp_path / "run").touch()

    def come_back():
        (tmp_path / "run").unlink()
        (tmp_path / "away").rename(tmp_path / "run")

    threading.Timer(0.2, come_back).start()
    wait_for_storage(run, source=run, rank=0, patience_s=20)
    assert run.exists("train/probes/00000")
    assert "fails, waiting" in caplog.text


def test_an_empty_folder_is_not_taken_for_the_run(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    with pytest.raises(RunError, match="is missing"):
        wait_for_storage(run, source=run, rank=0, patience_s=0)
