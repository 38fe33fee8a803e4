import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

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
