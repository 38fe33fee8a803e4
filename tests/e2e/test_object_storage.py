"""The whole run on object storage, killed on the way: moto in the place of S3, on this machine."""

import contextlib
import shutil
import socket
import subprocess
import time

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raycrp.plan import Stage

from .conftest import CommandLine, assert_ends_like

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

START_S = 60
INPUTS = ["CCO.CC(=O)O", "C1CC", "CCBr.N"]


@pytest.fixture(scope="module")
def storage():
    """A URI on an object store that holds nothing."""
    server_path = shutil.which("moto_server")
    if server_path is None:
        pytest.skip("needs moto_server on the path; make storage-test installs it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server_path, "-H", "127.0.0.1", "-p", str(port)]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
    ):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        wait_for(port)
        uri = f"s3://bucket/runs?endpoint_override=127.0.0.1:{port}&scheme=http"
        fs.FileSystem.from_uri(f"{uri}&allow_bucket_creation=true")[0].create_dir("bucket")
        yield uri
        server.terminate()


def wait_for(port):
    """Until something answers there."""
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < deadline, "the object store did not start"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stored(storage, finished, tmp_path_factory):
    """The run that `finished` is, on object storage, killed while it trains."""
    command_line = CommandLine(storage, log_dir=tmp_path_factory.mktemp("log"))
    command_line.run_and_kill("train/best", delay_s=0)
    assert_ends_like(finished[0], command_line)
    return command_line


def test_a_killed_run_on_object_storage_ends_like_one_on_a_disk(stored):
    uri = stored.run_folder.uri()
    result = stored.here("status", uri)
    assert result.returncode == 0, result.stderr
    assert f"run folder: {uri}" in result.stdout
    done = [line.split()[:2] for line in result.stdout.splitlines()]
    assert all([str(stage), "done"] in done for stage in Stage)


def test_predictions_from_and_into_object_storage_are_those_of_a_disk(stored, finished, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/molecules.smi").write_text("\n".join(INPUTS))
    target, options = fs.FileSystem.from_uri(stored.storage)[0], stored.storage.partition("?")[2]
    fs.copy_files(
        str(tmp_path / "in"),
        "bucket/in",
        source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=target,
    )
    given = (finished[0].run_folder.path(), str(tmp_path / "in"), str(tmp_path / "out"))
    remote = (stored.run_folder.uri(), f"s3://bucket/in?{options}", f"s3://bucket/out?{options}")
    for model, source, output in (given, remote):
        arguments = ["--task", "forward", "--top-k", "2", "--input", source, "--output", output]
        result = stored("predict", model, *arguments)
        assert result.returncode == 0, result.stderr
        assert "3 rows = 2 answered + 1 rejected" in result.stdout
    tables = [
        pq.read_table(path, filesystem=filesystem)
        for filesystem, path in ((fs.LocalFileSystem(), given[2]), (target, "bucket/out"))
    ]
    assert tables[0].num_rows > 0
    assert tables[0] == tables[1]
