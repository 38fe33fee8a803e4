import json
import shutil
from contextlib import contextmanager

import torch
from pyarrow import fs
from safetensors.torch import save_file

from raycrp.train import resume
from raycrp.train.checkpoint import GoodCheckpoint, Manifest, StoredCheckpoint
from raycrp.train.resume import load_training

STORED = GoodCheckpoint(
    StoredCheckpoint(fs.LocalFileSystem(), "bucket/run/checkpoint_7"),
    Manifest(step=7, rank=0, world_size=4, model_digest="m", files={}),
)


class Engine:
    def load_checkpoint(self, folder, *, tag, load_lr_scheduler_states):
        self.folder = folder


def test_workers_of_a_node_load_the_copy_that_the_first_one_resized(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(resume, "_convert", lambda source, target: made.append(str(target)) or "")
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)
    monkeypatch.setattr(resume.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(resume.dist, "all_gather_object", lambda problems, problem: None)
    monkeypatch.setattr(resume.dist, "barrier", lambda: None)

    @contextmanager
    def as_local_dir(self):
        # From object storage each worker has a copy of its own.
        folder = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"progress": {"step": 7}, "notes": {}}))
        save_file({"current": torch.zeros(1)}, folder / "state.safetensors")
        yield folder

    monkeypatch.setattr(StoredCheckpoint, "as_local_dir", as_local_dir)
    loaded = []
    for local_rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        engine = Engine()
        assert load_training(engine, STORED, is_resized=True).progress.step == 7
        loaded.append(engine.folder)
    assert loaded == made * 2
