import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest

from raycrp.choices import Notation
from raycrp.data import molecule_reader
from raycrp.data.molecule_reader import MoleculeReader
from raycrp.errors import DataError

pytestmark = pytest.mark.integration

PARENT = """
import sys, time
from contextlib import closing
from raycrp.choices import Notation
from raycrp.data.molecule_reader import MoleculeReader

if __name__ == "__main__":
    with closing(MoleculeReader(max_chars=1000, num_processes=2)) as reader:
        sizes = [(a, b) for a in range(1, 80) for b in range(1, 80)]
        reader.request((Notation.SMILES, "C" * a + "N" * b) for a, b in sizes)
        reader.collect()
        print("ready", flush=True)
        time.sleep(600)
"""


def test_worker_processes_end_with_a_killed_driver(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline().strip() == "ready"
    children = psutil.Process(parent.pid).children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) >= 1
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(worker.is_running() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(worker.is_running() for worker in workers)


def test_worker_processes_read_the_same_as_this_one(monkeypatch):
    monkeypatch.setattr(molecule_reader, "_MIN_POOL_TEXTS", 4)
    monkeypatch.setattr(molecule_reader, "_BATCH_TEXTS", 3)
    texts = ["OC", "C1", "NCC", "[Na+]", "C(C)(C)(C)(C)C", "OCC"]
    with closing(MoleculeReader(max_chars=100, num_processes=1)) as alone:
        alone.request((Notation.SMILES, text) for text in texts)
        alone.collect()
        assert alone._pool is None
    with closing(MoleculeReader(max_chars=100, num_processes=2)) as pooled:
        pooled.request((Notation.SMILES, text) for text in texts)
        pooled.collect()
        assert pooled._results == alone._results
        assert pooled._results[Notation.SMILES, "OC"] == "CO"
        for process in pooled._pool._processes.values():
            process.kill()
        with pytest.raises(DataError, match="a process that reads molecules died"):
            read_more(pooled)


def read_more(reader):
    reader.request((Notation.SMILES, "C" * n) for n in range(5, 15))
    reader.collect()
