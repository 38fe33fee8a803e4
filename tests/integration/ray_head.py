"""A Ray head node of a test's own, with dashboard and token, on free ports."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

TOKEN = "0123456789abcdef" * 4
START_TIMEOUT_S = 240


class Head:
    """A Ray head node of its own: temporary folder, ports, token."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp")
        self.folder = Path(self._folder.name)
        self.token_path = self.folder / "token"
        self.token_path.write_text(TOKEN)
        self.token_path.chmod(0o600)
        ports = free_ports(7)
        self.address = f"http://127.0.0.1:{ports[1]}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_API_SERVER_ADDRESS": self.address,
            # On a busy machine a node would end itself before its agents have started.
            "RAY_agent_register_timeout_ms": "300000",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        options = [
            *("--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1"),
            f"--port={ports[0]}",
            f"--dashboard-port={ports[1]}",
            f"--dashboard-agent-listen-port={ports[2]}",
            f"--dashboard-agent-grpc-port={ports[3]}",
            f"--runtime-env-agent-port={ports[4]}",
            f"--metrics-export-port={ports[5]}",
            f"--ray-client-server-port={ports[6]}",
            "--object-store-memory=100000000",
            *(f"--temp-dir={self.folder}/ray", "--disable-usage-stats"),
        ]
        self._log = self.folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ray_command("start", *options), env=self.environment, stdout=log, stderr=log
            )
        self._wait()

    def stop(self):
        """End the head and what it started, and nothing else."""
        processes = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        # After jobs have run Ray takes half a minute to go by itself.
        _, alive = psutil.wait_procs([psutil.Process(self._process.pid), *processes], timeout=5)
        for process in alive:
            process.kill()
        self._process.wait(timeout=60)
        self._folder.cleanup()

    def _wait(self):
        request = urllib.request.Request(
            f"{self.address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except OSError:
                time.sleep(0.2)
                continue
            # The dashboard answers before the node is known, and a busy node may yet give up.
            if "Ray runtime started" in self._log.read_text():
                return
            time.sleep(0.2)


def ray_command(*words):
    return [sys.executable, "-m", "ray.scripts.scripts", *words]


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
