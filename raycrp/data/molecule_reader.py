"""Canonical SMILES of a stream of molecule texts, each distinct text read once."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection

from raycrp.chem.molecules import (
    MoleculeError,
    MoleculeFault,
    canonicalise_all,
    join_molecules,
)
from raycrp.chem.reactions import Reaction, RoleTexts, make_reaction
from raycrp.choices import Notation
from raycrp.errors import DataError

_BATCH_TEXTS = 512
_MIN_POOL_TEXTS = 2_048
_MAX_CACHED = 2_000_000

_Result = str | tuple[MoleculeFault, str]


class MoleculeReader:
    """Reads molecules in worker processes, ahead of when they are needed.

    Few molecules are read in this process; worker processes start with the first large request.

    Args:
        max_chars: Longest SMILES of one molecule.
        num_processes: Worker processes; all CPUs of this process if None.
    """

    def __init__(self, *, max_chars: int, num_processes: int | None = None) -> None:
        self._max_chars = max_chars
        self._num_processes = num_processes or len(os.sched_getaffinity(0))
        self._results: dict[tuple[Notation, str], _Result | None] = {}
        self._requests: deque[list[tuple[Notation, list[str], Future[list[_Result]]]]] = deque()
        self._pool: ProcessPoolExecutor | None = None

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def request(self, texts: Iterable[tuple[Notation, str]]) -> None:
        """Start reading molecules that have not been read.

        Raises:
            DataError: If a worker process died.
        """
        wanted: dict[Notation, list[str]] = {}
        for key in texts:
            if key not in self._results:
                self._results[key] = None
                wanted.setdefault(key[0], []).append(key[1])
        request = []
        for notation, missing in wanted.items():
            for start in range(0, len(missing), _BATCH_TEXTS):
                batch = missing[start : start + _BATCH_TEXTS]
                request.append((notation, batch, self._submit(batch, notation, len(missing))))
        self._requests.append(request)

    def collect(self) -> None:
        """Wait for the oldest request.

        Raises:
            DataError: If a worker process died.
        """
        for notation, texts, future in self._requests.popleft():
            with _explaining_death():
                results = future.result()
            for text, result in zip(texts, results, strict=True):
                # One object where the text is canonical already, which it mostly is.
                self._results[notation, text] = text if result == text else result
        if len(self._results) > _MAX_CACHED:
            for key in list(islice(self._results, _MAX_CACHED // 2)):
                del self._results[key]

    def reaction(self, roles: RoleTexts, *, notation: Notation) -> Reaction:
        """Canonical reaction of molecule texts.

        Raises:
            MoleculeError: If one of them cannot be read.
            ReactionError: If nothing new comes out.
        """

        def canonical(texts: Sequence[str]) -> str:
            """One text of several molecules, from what was read ahead."""
            return join_molecules([self._canonical(text, notation) for text in texts])

        return make_reaction(roles, canonical=canonical)

    def _canonical(self, text: str, notation: Notation) -> str:
        result = self._results.get((notation, text))
        if result is None:
            [result] = canonicalise_all([text], notation=notation, max_chars=self._max_chars)
        if isinstance(result, tuple):
            raise MoleculeError(*result)
        return result

    def _submit(
        self, texts: list[str], notation: Notation, num_missing: int
    ) -> "Future[list[_Result]]":
        if self._pool is None and num_missing >= _MIN_POOL_TEXTS and self._num_processes > 1:
            # A fork would copy the threads and locks that Ray and Arrow hold here.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._num_processes, mp_context=context, initializer=_end_with_parent
            )
        if self._pool is not None:
            with _explaining_death():
                return self._pool.submit(
                    canonicalise_all, texts, notation=notation, max_chars=self._max_chars
                )
        done: Future[list[_Result]] = Future()
        done.set_result(canonicalise_all(texts, notation=notation, max_chars=self._max_chars))
        return done


def _end_with_parent() -> None:
    """Let no worker outlive a killed driver, whose pipes its siblings would hold open."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def wait() -> None:
        """Sleep until the driver is gone, then go too."""
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _explaining_death() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads molecules died, perhaps for want of memory; "
            "try data.num_processes=1"
        ) from error
