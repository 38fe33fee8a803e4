import os
import pickle
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from raycrp.errors import RunError
from raycrp.run import RunFolder, share_stages


def names_in(folder):
    """Hidden ones too, which the run folder leaves out."""
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def run(tmp_path):
    return RunFolder(str(tmp_path), "r")


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(run):
    run.write_bytes("a/b.txt", b"one")
    run.write_bytes("a/b.txt", b"two")
    assert run.read_bytes("a/b.txt") == b"two"
    assert names_in(run.path("a")) == ["b.txt"]


def test_what_a_killed_writer_leaves_is_no_part_of_a_table(run):
    run.write_table("t/one.parquet", pa.table({"x": [1, 2]}))
    run.write_bytes("t/.two.parquet.k3x9", b"PAR1")
    assert run.list_names("t") == ["one.parquet"]
    assert run.num_rows("t") == 2
    assert run.read_table("t")["x"].to_pylist() == [1, 2]


def test_an_interrupted_write_keeps_the_old_file(run, monkeypatch):
    run.write_bytes("a.txt", b"old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        run.write_bytes("a.txt", b"new")
    assert run.read_bytes("a.txt") == b"old"
    assert names_in(run.path()) == ["a.txt"]


def test_tables_and_row_counts(run):
    run.write_table("t/one.parquet", pa.table({"x": [1, 2]}))
    run.write_table("t/two.parquet", pa.table({"x": [3]}))
    assert run.read_table("t")["x"].to_pylist() == [1, 2, 3]
    assert run.num_rows("t") == 3
    assert run.num_rows("t/one.parquet") == 2


def test_a_missing_file_is_named(run):
    with pytest.raises(RunError, match=r"nothing\.json is missing"):
        run.read_json("nothing.json")
    with pytest.raises(RunError, match="is missing"):
        run.local_dir("nowhere")


def test_a_new_folder_takes_the_old_ones_place_when_complete(run):
    with run.new_local_dir("model") as folder:
        (folder / "a").write_text("1")
    with run.new_local_dir("model") as folder:
        (folder / "b").write_text("2")
    assert run.list_names("model") == ["b"]
    with pytest.raises(RuntimeError), run.new_local_dir("model") as folder:  # noqa: PT012
        (folder / "c").write_text("3")
        raise RuntimeError
    assert run.list_names("model") == ["b"]
    assert names_in(run.path()) == ["model"]


def test_uris_are_storage_too(tmp_path):
    run = RunFolder(f"file://{tmp_path}", "r")
    run.write_json("x.json", {"a": 1})
    assert (tmp_path / "r" / "x.json").is_file()
    assert run.read_json("x.json") == {"a": 1}


def test_options_of_a_storage_stay_at_the_end_of_its_uris():
    run = RunFolder("mock:///bucket/runs?endpoint_override=http://127.0.0.1:9000", "r")
    assert run.path("train/ray") == "bucket/runs/r/train/ray"
    assert (
        run.uri("train/ray")
        == "mock:///bucket/runs/r/train/ray?endpoint_override=http://127.0.0.1:9000"
    )
    assert RunFolder(run.uri("train/search"), "trial").path() == "bucket/runs/r/train/search/trial"


def test_an_unknown_scheme_is_refused():
    with pytest.raises(RunError, match="cannot be opened"):
        RunFolder("nonsense://bucket", "r").exists()


def test_the_folder_pickles_after_use(run):
    run.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(run)).read_bytes("a") == b"1"


def test_a_relative_storage_means_the_same_folder_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(RunFolder("runs", "r"))
    monkeypatch.chdir("/")
    assert pickle.loads(pickled).path() == str(tmp_path / "runs" / "r")


def test_a_shared_stage_is_read_from_the_other_folder_and_never_changed(tmp_path):
    base = RunFolder(str(tmp_path), "base")
    base.write_bytes("data/a.txt", b"1")
    run = share_stages(RunFolder(f"{base.root}/trials", "t"), stages=["data"], base=base)
    run.write_bytes("train/b.txt", b"2")
    assert run.read_bytes("data/a.txt") == b"1"
    assert run.uri("data") == base.uri("data")
    assert run.path("train/b.txt").endswith("base/trials/t/train/b.txt")
    assert pickle.loads(pickle.dumps(run)).exists("data/a.txt")
    for change in (
        lambda: run.delete("data"),
        lambda: run.write_bytes("data/a.txt", b"3"),
        lambda: run.new_local_dir("data/tokenizer").__enter__(),
    ):
        with pytest.raises(RunError, match=r"shared by .*trials/t"):
            change()
    assert base.read_bytes("data/a.txt") == b"1"


def test_sharing_goes_through_a_folder_that_shares_itself(tmp_path):
    base = RunFolder(str(tmp_path), "base")
    base.write_bytes("data/a.txt", b"1")
    middle = share_stages(RunFolder(str(tmp_path), "middle"), stages=["data"], base=base)
    middle.write_bytes("elicit/c.txt", b"2")
    run = share_stages(RunFolder(str(tmp_path), "run"), stages=["data", "elicit"], base=middle)
    assert (run.read_bytes("data/a.txt"), run.read_bytes("elicit/c.txt")) == (b"1", b"2")


def test_shared_stages_move_with_the_folders(tmp_path):
    base = RunFolder(f"{tmp_path}/old", "base")
    base.write_bytes("data/a.txt", b"1")
    share_stages(RunFolder(f"{base.root}/trials", "t"), stages=["data"], base=base)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = RunFolder(f"{tmp_path}/new/base/trials", "t")
    assert moved.read_bytes("data/a.txt") == b"1"


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """Run folders are taken for those of object storage; where their copies lie."""
    monkeypatch.setattr(RunFolder, "is_local", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp" / f"raycrp-copies-{os.getuid()}"


def test_folders_go_to_object_storage_and_back(tmp_path, remote):
    run = RunFolder(str(tmp_path), "r")
    with run.new_local_dir("train/best") as folder:
        (folder / "config.json").write_text("{}")
    copy = run.local_dir("train/best")
    assert copy != tmp_path / "r/train/best"
    assert (copy / "config.json").read_text() == "{}"


def test_a_copy_that_storage_cut_off_is_made_anew(run, remote, monkeypatch):
    (Path(run.root) / "model").mkdir(parents=True)
    (Path(run.root) / "model/a").write_bytes(b"1")
    (Path(run.root) / "model/b").write_bytes(b"2")

    def cut_off(source, target, **_):
        Path(target, "a").write_bytes(b"1")
        raise OSError("storage is gone")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "copy_files", cut_off)
        with pytest.raises(OSError, match="is gone"):
            run.local_dir("model")
    assert names_in(run.local_dir("model")) == ["a", "b"]


def test_a_node_has_one_copy_of_a_folder_as_it_is(run, remote):
    path = Path(run.root) / "model/a"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    first = run.local_dir("model")
    assert RunFolder(run.storage, run.name).local_dir("model") == first
    path.write_bytes(b"22")
    assert (run.local_dir("model") / "a").read_bytes() == b"22"


def test_runs_of_one_name_on_other_storage_have_copies_of_their_own(tmp_path, remote):
    copies = []
    for place in ("here", "there"):
        path = tmp_path / place / "demo/model/a"
        path.parent.mkdir(parents=True)
        path.write_text(place)
        os.utime(path, (1, 1))
        copies.append(RunFolder(str(tmp_path / place), "demo").local_dir("model"))
    assert [(copy / "a").read_text() for copy in copies] == ["here", "there"]


def test_copies_that_nobody_wants_any_more_go(run, remote):
    for name in ("a", "b", "c"):
        path = Path(run.root) / name / "file"
        path.parent.mkdir(parents=True)
        path.write_text(name)
    first, second = (run.local_dir(name) for name in ("a", "b"))
    os.utime(first, (1, 1))
    third = run.local_dir("c")
    assert {path for path in remote.iterdir() if path.is_dir()} == {second, third}
