"""The hub source against a loopback server that behaves like the hub."""

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = "data/Molecule-oriented_Instructions.zip"
ROW = {
    "instruction": "?",
    "input": "[C][O]",
    "output": "[C][=O]",
    "metadata": {"task": "retrosynthesis", "split": "test"},
}
CAPTION = {**ROW, "metadata": {"task": "molecular description generation", "split": "test"}}

READ_ROWS = """
import json, sys, time
from raycrp.config import load_config
from raycrp.data.read import read_rows
from raycrp.errors import DataError

time.sleep = lambda seconds: None  # The hub's library waits longer between its attempts.
config = load_config([], ["data.source=hub", "data.notation=selfies", *sys.argv[1:]])
try:
    rows = list(read_rows(config.data, seed=0))
except DataError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({"rows": [[row.task, row.split, row.input, row.fault] for row in rows]}))
"""


def archive():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("Molecule-oriented_Instructions/retrosynthesis.json", json.dumps([CAPTION]))
        file.writestr("Molecule-oriented_Instructions/other.json", json.dumps([ROW]))
    return packed.getvalue()


class HubStub(BaseHTTPRequestHandler):
    """Serves one file at one revision; fails as often as it is told to first."""

    content = archive()

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        if self._answer():
            self.wfile.write(self.content)

    def log_message(self, *_):
        pass

    def _answer(self):
        server = self.server
        server.seen.append((self.command, self.path))
        if server.failures:
            server.failures -= 1
            self.send_error(503)
            return False
        prefix = "/datasets/zjunlp/Mol-Instructions/resolve/"
        if self.path == f"{prefix}{REVISION}/{NAME}":
            self.send_response(200)
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()
            return True
        is_revision = self.path.startswith(f"{prefix}{REVISION}/")
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if is_revision else "RevisionNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False


@pytest.fixture
def server():
    stub = ThreadingHTTPServer(("127.0.0.1", 0), HubStub)
    stub.seen, stub.failures = [], 0
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    yield stub
    stub.shutdown()
    stub.server_close()


def read_from(server, cache, *overrides):
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    settings = overrides or (f"data.hub.revision={REVISION}",)
    done = subprocess.run(
        [sys.executable, "-c", READ_ROWS, *settings],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


EXPECTED = {
    "rows": [
        [None, None, "[C][O]", ["other_task", "molecular description generation"]],
        ["retrosynthesis", "test", "[C][O]", None],
    ]
}


def test_the_published_archive_is_read_once_and_then_from_the_cache(server, tmp_path):
    server.failures = 2
    assert read_from(server, tmp_path) == EXPECTED
    assert [command for command, _ in server.seen].count("GET") == 1
    num_requests = len(server.seen)
    assert read_from(server, tmp_path) == EXPECTED
    assert len(server.seen) == num_requests


def test_what_is_not_there_is_named_at_once(server, tmp_path):
    other = "f" * 40
    answer = read_from(server, tmp_path, f"data.hub.revision={other}")
    assert f"Mol-Instructions at {other}: {NAME}: no such revision" in answer["error"]
    assert len(server.seen) == 1


def test_a_hub_that_stays_away_is_given_up_on(server, tmp_path):
    server.failures = 1_000
    answer = read_from(server, tmp_path)
    assert f"{REVISION}: {NAME}: neither in the local cache nor to be had" in answer["error"]
    assert "503" in answer["error"]
    assert 1 < len(server.seen) < 20
