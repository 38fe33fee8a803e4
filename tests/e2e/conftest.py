import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from raycrp.cli import main
from raycrp.run import RunFolder

CONFIG = Path(__file__).parent / "tiny.yaml"
TIMEOUT_S = 900
TABLES = [
    "elicit/trials.parquet",
    "annotate/test",
    "prompt/test",
    "evaluate/predictions",
    "evaluate/scores.parquet",
]


class CommandLine:
    """Starts ``python -m raycrp`` as a subprocess, on a storage folder of its own."""

    def __init__(self, storage: Path | str, *, log_dir: Path | None = None) -> None:
        self.storage = storage
        self.run_folder = RunFolder(str(storage), "tiny")
        self._log_path = (log_dir or Path(storage)) / "command.log"

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raycrp", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=self._environment(),
            check=False,
        )

    def here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, which has loaded what a new one would take seconds to load."""
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "argv", ["raycrp", *arguments])
            patch.setenv("COLUMNS", "100")
            patch.delenv("RAY_ADDRESS", raising=False)
            try:
                main()
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def run(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        """The whole tiny run."""
        return self("run", str(CONFIG), f"run.storage={self.storage}", *overrides)

    def run_and_kill(self, marker: str, *, delay_s: float) -> None:
        """Start the tiny run and SIGKILL its driver so long after a file or folder appears."""
        self.start_and_kill(("run", *self.tiny_config), marker, delay_s=delay_s)

    @property
    def tiny_config(self) -> tuple[str, str]:
        """Arguments that name the tiny run in this storage."""
        return str(CONFIG), f"run.storage={self.storage}"

    def start_and_kill(
        self, arguments: Sequence[str], marker: str, *, delay_s: float = 0.0
    ) -> None:
        """Start a command and SIGKILL it so long after a file or folder of the run appears."""
        with self._log_path.open("ab") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "raycrp", *arguments],
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        self._wait_for(driver, marker)
        time.sleep(delay_s)
        assert driver.poll() is None, f"the run ended by itself: {self._log_path.read_text()}"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()

    def _wait_for(self, driver: subprocess.Popen[bytes], relative: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not self.run_folder.exists(relative):
            assert driver.poll() is None, f"the run ended early: {self._log_path.read_text()}"
            assert time.monotonic() < deadline, f"{relative} did not appear"
            time.sleep(0.05)

    @staticmethod
    def _environment() -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        return kept | {"COLUMNS": "100"}


@pytest.fixture
def command_line(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An unbroken tiny run, and what its command printed."""
    command_line = CommandLine(tmp_path_factory.mktemp("finished"))
    result = command_line.run()
    assert result.returncode == 0, result.stderr[-4000:]
    return command_line, result


def assert_ends_like(unbroken, killed):
    """The same command again finishes the killed run, with the tables of the unbroken one."""
    result = killed.run()
    assert result.returncode == 0, result.stderr[-4000:]
    assert tables_of(killed.run_folder) == tables_of(unbroken.run_folder)


def tables_of(run):
    """The final tables, without the columns that hold times."""
    tables = {name: run.read_table(name) for name in TABLES}
    return {
        name: table.select([column for column in table.column_names if "seconds" not in column])
        for name, table in tables.items()
    }
