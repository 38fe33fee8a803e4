import pickle

import pytest
from pyarrow import fs

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train.checkpoint import (
    StoredCheckpoint,
    check_checkpoint,
    newest_good_checkpoint,
    stored_checkpoints,
    write_manifest,
)


def write_checkpoint(folder, *, step, world_size=2, digest="m"):
    folder.mkdir(parents=True)
    for rank in range(world_size):
        part = folder.parent / f"part-{rank}"
        (part / "state").mkdir(parents=True)
        (part / "state" / f"rank{rank}.pt").write_bytes(bytes([step, rank]) * 100)
        write_manifest(part, step=step, rank=rank, world_size=world_size, model_digest=digest)
        for path in part.rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(part)
                target.parent.mkdir(exist_ok=True)
                path.rename(target)
        (part / "state").rmdir()
        part.rmdir()
    return StoredCheckpoint(fs.LocalFileSystem(), str(folder))


def test_a_whole_checkpoint_passes(tmp_path):
    write_checkpoint(tmp_path / "c", step=5)
    manifest = check_checkpoint(tmp_path / "c")
    assert (manifest.step, manifest.world_size, manifest.model_digest) == (5, 2, "m")
    assert manifest.files["state/rank0.pt"][0] == 200


def cut_short(folder):
    path = folder / "state" / "rank1.pt"
    path.write_bytes(path.read_bytes()[:50])


def flip_a_bit(folder):
    path = folder / "state" / "rank1.pt"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)


def lose_a_file(folder):
    (folder / "state" / "rank0.pt").unlink()


def lose_a_manifest(folder):
    (folder / "manifest-00001.json").unlink()


def cut_a_manifest(folder):
    path = folder / "manifest-00000.json"
    path.write_text(path.read_text()[:40])


HARMS = [cut_short, flip_a_bit, lose_a_file, lose_a_manifest, cut_a_manifest]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_is_stepped_back_from(tmp_path, harm, caplog):
    old = write_checkpoint(tmp_path / "old", step=5)
    new = write_checkpoint(tmp_path / "new", step=10)
    harm(tmp_path / "new")
    good = newest_good_checkpoint([new, old], model_digest="m")
    assert good.stored == old
    assert good.manifest.step == 5
    assert "is damaged, trying an older one" in caplog.text


def test_no_good_checkpoint_is_none(tmp_path):
    only = write_checkpoint(tmp_path / "c", step=5)
    flip_a_bit(tmp_path / "c")
    assert newest_good_checkpoint([only], model_digest="m") is None
    assert newest_good_checkpoint([], model_digest="m") is None


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    stored = write_checkpoint(tmp_path / "c", step=5, digest="other")
    with pytest.raises(TrainError, match="another model or tokenizer"):
        newest_good_checkpoint([stored], model_digest="m")


def test_workers_that_are_sent_a_checkpoint_share_one_copy_of_it(tmp_path):
    write_checkpoint(tmp_path / "c", step=5)
    remote = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    stored = StoredCheckpoint(remote, "c")
    sent = pickle.loads(pickle.dumps(stored))
    assert sent == stored
    folders = []
    for each in (stored, sent, StoredCheckpoint(remote, "c")):
        with each.as_local_dir() as folder:
            assert check_checkpoint(folder).step == 5
            folders.append(folder)
        assert not folder.exists()
    assert folders[0] == folders[1] != folders[2]


def test_checkpoints_are_listed_by_falling_step(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    for name, step in (("checkpoint_a", 10), ("checkpoint_b", 30), ("checkpoint_c", 20)):
        write_checkpoint(tmp_path / "run/train/ray" / name, step=step)
    write_checkpoint(tmp_path / "run/train/local/checkpoint_00000025", step=25)
    (tmp_path / "run/train/ray/checkpoint_empty").mkdir()
    found = stored_checkpoints(run, folders=("train/ray", "train/local", "train/none"))
    assert [stored.path.rsplit("_", 1)[1] for stored in found] == ["b", "00000025", "c", "a"]
