import json

import pytest

from raycrp.run import RunFolder
from raycrp.train.ray_folder import tidy_ray_folder

FOLDER = "train/ray/llm_crp"
SNAPSHOT = f"{FOLDER}/checkpoint_manager_snapshot.json"


@pytest.fixture
def run(tmp_path):
    """Five checkpoints, one a step; the upload of the last was killed before its manifest."""
    run = RunFolder(str(tmp_path), "run")
    for step in range(1, 6):
        run.write_bytes(f"{FOLDER}/{name(step)}/state.bin", b"weights")
        if step < 5:
            run.write_json(f"{FOLDER}/{name(step)}/manifest-00000.json", {"step": step})
    return run


def name(step):
    return f"checkpoint_2026-11-23_10-00-0{step}.000000"


def names(run):
    return {each for each in run.list_names(FOLDER) if each.startswith("checkpoint_2")}


def list_in_snapshot(run, *steps):
    listed = [{"checkpoint_dir_name": name(step)} for step in steps]
    run.write_json(SNAPSHOT, {"checkpoint_results": listed})


def test_checkpoints_that_ray_knows_and_the_newest_whole_ones_stay(run):
    list_in_snapshot(run, 1, 2)
    tidy_ray_folder(run, num_checkpoints=1)
    assert names(run) == {name(1), name(2), name(4)}
    assert run.exists(SNAPSHOT)


@pytest.mark.parametrize("data", [b"", b'{"checkpoint_results": [{"checkp', b"\xff\xfe"])
def test_a_damaged_snapshot_goes_and_all_checkpoints_stay(run, data):
    run.write_bytes(SNAPSHOT, data)
    tidy_ray_folder(run, num_checkpoints=1)
    assert names(run) == {name(step) for step in range(1, 6)}
    assert not run.exists(SNAPSHOT)


def test_a_folder_in_place_of_the_snapshot_goes(run):
    run.write_bytes(f"{SNAPSHOT}/x", b"")
    tidy_ray_folder(run, num_checkpoints=2)
    assert not run.exists(SNAPSHOT)


def test_without_a_folder_there_is_nothing_to_do(tmp_path):
    run = RunFolder(str(tmp_path), "empty")
    tidy_ray_folder(run, num_checkpoints=1)
    assert run.list_names() == []


def test_the_list_of_ray_is_read_as_ray_writes_it(run):
    run.write_bytes(SNAPSHOT, json.dumps({"latest": name(5)}).encode())
    tidy_ray_folder(run, num_checkpoints=1)
    assert name(5) in names(run)
