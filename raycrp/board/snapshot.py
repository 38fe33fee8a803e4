"""All that the board shows, read from a run folder again and again at little cost."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import fs

from raycrp.board.search import SearchLog, SearchView
from raycrp.board.stages import DONE, OUTDATED, StageView, stage_views
from raycrp.board.sweep import SweepView, build_sweep
from raycrp.board.training import TrainingLog, TrainingView, rule_of
from raycrp.errors import RaycrpError, RunError
from raycrp.plan import Stage
from raycrp.run import RunFolder
from raycrp.tracking import METRICS_FILE
from raycrp.train.restarts import RESTARTS_FILE, Restart, parse_restarts
from raycrp.train.trials import SEARCH_DIR

ROUNDS_FILE = "elicit/rounds.jsonl"
CARDS_FILE = "elicit/rt_cards.parquet"
DONE_DIR = "elicit/tune/done"
TUNE_DIR = "elicit/tune/ray"

LOCAL_INTERVAL_S, REMOTE_INTERVAL_S = 2.0, 10.0

_LINE_KEYS = {
    *("trial_id", "task", "encoding", "num_clusters", "round"),
    *("accuracy", "majority_rate", "kappa", "information_bits"),
}
_UNREADABLE = (RaycrpError, OSError, pa.ArrowException, ValueError, KeyError, yaml.YAMLError)
"""What reading a file may raise that is cut short, gone again, or out of reach."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Args:
        run_name: Name of the run.
        run_uri: Its folder.
        settings: The resolved configuration, as read from YAML; empty before it is there.
        stages: All stages in order.
        sweep: The sweep.
        cards: Rows of ``elicit/rt_cards.parquet``.
        training: The training log.
        restarts: Times that training's workers started anew.
        search: The search over step size and batch.
        problems: Files that could not be read this time; what was read before still stands.
        seen_at: When it was read, in seconds since 1970.
    """

    run_name: str
    run_uri: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[StageView] = ()
    sweep: SweepView = field(default_factory=SweepView)
    cards: Sequence[Mapping[str, Any]] = ()
    training: TrainingView = field(default_factory=TrainingView)
    restarts: Sequence[Restart] = ()
    search: SearchView = field(default_factory=SearchView)
    problems: Sequence[str] = ()
    seen_at: float = field(default=0.0, compare=False)

    def stage(self, stage: Stage) -> StageView | None:
        """One stage."""
        return next((view for view in self.stages if view.stage is stage), None)


class RunReader:
    """Reads a run folder; a file that has not changed is not read again.

    Args:
        run: The run folder.

    Raises:
        RunError: If there is no such folder.
    """

    def __init__(self, run: RunFolder) -> None:
        if not run.exists():
            raise RunError(f"no run at {run.uri()}; check the path and the name")
        self._run = run
        self._log = TrainingLog(run)
        self._files: dict[str, tuple[object, Any]] = {}
        self._lines_of: dict[str, list[Mapping[str, Any]]] = {}
        self._sweep: tuple[object, SweepView] = (None, SweepView())
        self._training = TrainingView()
        self._search_log = SearchLog(run)
        self._search = SearchView()
        self._problems: list[str] = []

    def read(self) -> Snapshot:
        """The run as it is now."""
        self._problems = []
        settings = self._read_file("config.yaml", yaml.safe_load, {})
        stages = stage_views(self._run)
        return Snapshot(
            run_name=self._run.name,
            run_uri=self._run.uri(),
            settings=settings,
            stages=stages,
            sweep=self._read_sweep(settings, stages) if settings else SweepView(),
            cards=self._read_file(CARDS_FILE, _parse_table, ()),
            training=self._read_training(settings),
            restarts=self._read_file(RESTARTS_FILE, parse_restarts, ()),
            search=self._read_search(settings) if settings else SearchView(),
            problems=tuple(self._problems),
            seen_at=time.time(),
        )

    def _read_file(self, relative: str, parse: Callable[[bytes], Any], default: Any) -> Any:
        known_key, value = self._files.get(relative, (None, default))
        info = self._run.filesystem.get_file_info(self._run.path(relative))
        if info.type != fs.FileType.File:
            self._files.pop(relative, None)
            return default
        key = (info.mtime_ns, info.size)
        if key != known_key:
            try:
                value = parse(self._run.read_bytes(relative))
            except _UNREADABLE:
                self._problems.append(relative)
            else:
                self._files[relative] = (key, value)
        return value

    def _read_training(self, settings: Mapping[str, Any]) -> TrainingView:
        try:
            self._training = self._log.read(select_by=rule_of(settings))
        except _UNREADABLE:
            self._problems.append(METRICS_FILE)
        return self._training

    def _read_search(self, settings: Mapping[str, Any]) -> SearchView:
        try:
            self._search = self._search_log.read(settings)
        except _UNREADABLE:
            self._problems.append(SEARCH_DIR)
        return self._search

    def _read_sweep(self, settings: Mapping[str, Any], stages: Sequence[StageView]) -> SweepView:
        lines = self._read_file(ROUNDS_FILE, _parse_lines, [])
        finished = frozenset(n.removesuffix(".json") for n in self._run.list_names(DONE_DIR))
        started = frozenset(self._started_trials())
        elicit = next(view for view in stages if view.stage is Stage.ELICIT)
        is_over = elicit.state in (DONE, OUTDATED)
        key = (id(lines), id(settings), finished, started, is_over)
        if key != self._sweep[0]:
            missing = sorted(finished - {line["trial_id"] for line in lines})
            extra = [line for name in missing for line in self._done_lines(name)]
            view = build_sweep(
                settings,
                lines=[*lines, *extra],
                finished=finished,
                started=started,
                is_over=is_over,
            )
            self._sweep = (key, view)
        return self._sweep[1]

    def _started_trials(self) -> list[str]:
        attempts = self._run.list_names(TUNE_DIR)
        return self._run.list_names(f"{TUNE_DIR}/{attempts[-1]}") if attempts else []

    def _done_lines(self, trial_id: str) -> list[Mapping[str, Any]]:
        """Rounds of a trial that a killed driver could not add to the rounds file."""
        if trial_id not in self._lines_of:
            relative = f"{DONE_DIR}/{trial_id}.json"
            try:
                record = self._run.read_json(relative)
                names = ("trial_id", "task", "encoding", "num_clusters", "is_probe")
                head = {name: record[name] for name in names}
                lines = [{**head, **line} for line in record["rounds"]]
                self._lines_of[trial_id] = [line for line in lines if line.keys() >= _LINE_KEYS]
            except _UNREADABLE:
                self._problems.append(relative)
                return []
        return self._lines_of[trial_id]


class Follower:
    """Keeps a snapshot fresh in a thread of its own, so that pages cost the same for many viewers.

    Args:
        reader: Reads the run folder.
        interval_s: Seconds between two looks.
    """

    def __init__(self, reader: RunReader, *, interval_s: float) -> None:
        self._reader = reader
        self._interval_s = interval_s
        # One tuple, so that a viewer never gets a new number with an old snapshot.
        self._latest = (0, reader.read())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="board", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def latest(self) -> tuple[int, Snapshot]:
        """The newest snapshot, and a number that grows when what it shows has changed."""
        return self._latest

    def _follow(self) -> None:
        while not self._stop.wait(self._interval_s):
            version, before = self._latest
            try:
                snapshot = self._reader.read()
            except _UNREADABLE as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                snapshot = replace(before, problems=(reason,))
            if snapshot != before:
                self._latest = (version + 1, snapshot)


def _parse_lines(data: bytes) -> list[Mapping[str, Any]]:
    """Lines that are whole; the last may still be on its way."""
    lines: list[Mapping[str, Any]] = []
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(line, dict) and line.keys() >= _LINE_KEYS:
            lines.append(line)
    return lines


def _parse_table(data: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows
