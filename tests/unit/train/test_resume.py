import json
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
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
    """Loads a universal checkpoint as DeepSpeed's ZeRO 3 does."""

    def __init__(self):
        weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        groups = [
            {"params": [weight], "weight_decay": decay}
            for weight, decay in zip(weights, (0.01, 0.0), strict=True)
        ]
        inner = torch.optim.AdamW(groups)
        self.basic_optimizer = inner
        self.optimizer = SimpleNamespace(optimizer=inner, param_groups=inner.param_groups)

    def load_checkpoint(self, folder, *, tag, load_lr_scheduler_states):
        self.folder = folder
        step = torch.tensor(7.0)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.optimizer.param_groups[0]["weight_decay"]
            for weight in group["params"]:
                moments = {name: torch.zeros(1) for name in ("exp_avg", "exp_avg_sq")}
                self.optimizer.optimizer.state[weight] = {"step": step, **moments}


def steps_of(optimizer):
    return [state["step"].item() for state in optimizer.state.values()]


@pytest.fixture
def resized_copies(tmp_path, monkeypatch):
    """Checkpoints that load without DeepSpeed and other workers; the copies made of them."""
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
    return made


def test_workers_of_a_node_load_the_copy_that_the_first_one_resized(resized_copies, monkeypatch):
    loaded = []
    for local_rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        engine = Engine()
        assert load_training(engine, STORED, is_resized=True).progress.step == 7
        loaded.append(engine.folder)
    assert loaded == resized_copies * 2


def test_groups_of_a_resized_optimizer_keep_their_own_settings_and_counts(resized_copies):
    engine = Engine()
    load_training(engine, STORED, is_resized=True)
    optimizer = engine.optimizer.optimizer
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(1)
    optimizer.step()
    assert steps_of(optimizer) == [8.0, 8.0]
