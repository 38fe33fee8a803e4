"""The training log, followed as it grows: a fixed number of points, whatever its length."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raycrp.choices import SelectBy
from raycrp.run import RunFolder
from raycrp.tracking import best_validation, metrics_infos, validation_cost

Line = Mapping[str, Any]
_Key = tuple[str, int, int]
"""Path, time of change and size: another key, other contents."""

MAX_POINTS = 1_200

_CHUNK_BYTES = 4 * 2**20
_NUM_READERS = 16
_MAX_LINE_BYTES = 2**20
_CHECK_BYTES = 128
_VALIDATION = b'"validation_loss"'


@dataclass(frozen=True)
class TrainingView:
    """What the log holds, thinned out.

    Args:
        steps: Lines of training steps; every so many of them, and the last.
        validations: Lines of validations; all, or every so many and the best.
        stride: How many lines of steps one of ``steps`` stands for.
        select_by: Which validation is the best.
    """

    steps: Sequence[Line] = ()
    validations: Sequence[Line] = ()
    stride: int = 1
    select_by: SelectBy = SelectBy.LOSS

    @property
    def last(self) -> Line | None:
        """The newest line of a training step."""
        return self.steps[-1] if self.steps else None

    @property
    def best(self) -> Line | None:
        """The validation whose weights are kept."""
        return best_validation(self.validations, select_by=self.select_by)


def rule_of(settings: Mapping[str, Any]) -> SelectBy:
    """Which validation is the best, by a run's settings.

    Args:
        settings: The resolved configuration, as read from YAML; older ones do not say.
    """
    return SelectBy(settings.get("train", {}).get("select_by", SelectBy.LOSS))


def best_score(line: Line, *, select_by: SelectBy) -> tuple[str, str]:
    """Name and value of what makes a validation the best.

    Args:
        line: Of the validation.
        select_by: The rule.
    """
    if select_by is SelectBy.EXACT:
        return "highest validation exact match", f"{line.get('validation_exact', 0.0):.3f}"
    return "lowest validation loss", f"{line['validation_loss']:.4f}"


def seconds_left(view: TrainingView, *, train: Line) -> float | None:
    """Until the last epoch or step allowed; early stopping may come first.

    Args:
        view: The training log.
        train: Settings of the stage, as read from YAML.

    Returns:
        Seconds; None where too little is known.
    """
    if view.last is None or not view.last["epoch"]:
        return None
    last = view.last
    # A resumed attempt counts its seconds anew.
    attempt = [line for line in view.steps if line["seconds"] <= last["seconds"]]
    num_steps = last["step"] - attempt[0]["step"]
    if num_steps <= 0:
        return None
    steps_left = last["step"] / last["epoch"] * (train["max_epochs"] - last["epoch"])
    if train["max_steps"] is not None:
        steps_left = min(steps_left, train["max_steps"] - last["step"])
    return max(0.0, float(steps_left * (last["seconds"] - attempt[0]["seconds"]) / num_steps))


class TrainingLog:
    """Follows the segments of the metrics: only what is new is read, and little of it is kept.

    A resumed training writes them anew without the steps that are done again; a change in those
    read to their end tells, or the bytes before the place last read, and reading starts over. A
    line without its end waits for it.

    Args:
        run: The run folder.
        max_points: Lines of each kind to keep, give or take a factor of two.
    """

    def __init__(self, run: RunFolder, *, max_points: int = MAX_POINTS) -> None:
        self._run = run
        self._max_points = max_points
        self._keys: list[_Key] = []
        self._clear()

    def read(self, *, select_by: SelectBy = SelectBy.LOSS) -> TrainingView:
        """The log as it is now.

        Args:
            select_by: Which validation is the best.
        """
        keys = [(each.path, each.mtime_ns, each.size) for each in metrics_infos(self._run)]
        if keys != self._keys:
            self._follow(keys)
            self._keys = keys
        kept = [*self._best.values(), self._last_validation]
        validations = _merged(self._validations, kept)
        steps = _merged(self._steps, [self._last])
        return TrainingView(steps, validations, self._stride, select_by)

    def _clear(self) -> None:
        self._keys = []
        self._finished: list[_Key] = []
        self._offset = 0
        self._before = b""
        self._number = 0
        self._stride = 1
        self._steps: list[Line] = []
        self._validations: list[Line] = []
        self._last: Line | None = None
        self._last_validation: Line | None = None
        self._best: dict[SelectBy, Line] = {}

    def _follow(self, keys: Sequence[_Key]) -> None:
        if not self._is_continued(keys):
            self._clear()
        waiting = keys[len(self._finished) :]
        for key, file in zip(waiting, self._open(waiting), strict=True):
            self._read_on(file)
            file.close()
            if key is not keys[-1]:
                self._finished.append(key)
                self._offset, self._before = 0, b""

    def _open(self, keys: Sequence[_Key]) -> Iterator[Any]:
        """Files in order; of object storage, which answers slowly, several at once."""
        if self._run.is_local:
            yield from (self._run.filesystem.open_input_file(path) for path, *_ in keys)
            return
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            for first in range(0, len(keys), _NUM_READERS):
                yield from readers.map(self._fetch, keys[first : first + _NUM_READERS])

    def _fetch(self, key: _Key) -> Any:
        path, _, size = key
        file = self._run.filesystem.open_input_file(path)
        return pa.BufferReader(file.read()) if size <= _CHUNK_BYTES else file

    def _is_continued(self, keys: Sequence[_Key]) -> bool:
        num_finished = len(self._finished)
        if list(keys[:num_finished]) != self._finished:
            return False
        if not self._offset:
            return True
        if len(keys) == num_finished:
            return False
        with self._run.filesystem.open_input_file(keys[num_finished][0]) as file:
            if file.size() < self._offset:
                return False
            file.seek(self._offset - len(self._before))
            return bool(file.read(len(self._before)) == self._before)

    def _read_on(self, file: Any) -> None:
        file.seek(self._offset)
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                self._take(whole, num_bytes_left=file.size() - self._offset)
                self._before = (self._before + whole + newline)[-_CHECK_BYTES:]
                self._offset += len(whole) + 1
            elif len(rest) > _MAX_LINE_BYTES:
                break

    def _take(self, text: bytes, *, num_bytes_left: int) -> None:
        lines = text.split(b"\n")
        expected = num_bytes_left // max(1, len(text) // len(lines))
        while len(self._steps) + expected / self._stride > 2 * self._max_points:
            self._thin()
        first = -self._number % self._stride
        self._number += len(lines)
        self._steps += [line for line in _parsed(lines[first :: self._stride]) if "loss" in line]
        self._last = next(
            (line for line in _parsed(reversed(lines[-2_000:])) if "loss" in line), self._last
        )
        for line in _parsed(_lines_with(_VALIDATION, text)):
            self._validations.append(line)
            self._last_validation = line
            for rule in SelectBy:
                cost = validation_cost(line, select_by=rule)
                if cost < validation_cost(self._best.get(rule, {}), select_by=rule):
                    self._best[rule] = line
        while len(self._validations) > 2 * self._max_points:
            self._validations = self._validations[::2]

    def _thin(self) -> None:
        self._stride *= 2
        self._steps = self._steps[::2]


def _merged(lines: Sequence[Line], others: Sequence[Line | None]) -> tuple[Line, ...]:
    """Lines in order of their steps, each step once."""
    steps = {int(line["step"]): line for line in (*lines, *others) if line is not None}
    return tuple(steps[step] for step in sorted(steps))


def _lines_with(word: bytes, text: bytes) -> Iterator[bytes]:
    place = text.find(word)
    while place >= 0:
        end = text.find(b"\n", place)
        end = len(text) if end < 0 else end
        yield text[text.rfind(b"\n", 0, place) + 1 : end]
        place = text.find(word, end)


def _parsed(lines: Any) -> Iterator[Line]:
    """Lines that are whole; one that a crash cut short is left out."""
    for text in lines:
        try:
            line = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(line, dict) and "step" in line:
            yield line
