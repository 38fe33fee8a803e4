"""What processes keep for each other on a node's own disk: one copy a node, found by its contents.

It lies in ``raycrp-KIND-USER`` of the folder for temporary files (``TMPDIR``). Whatever is there is
whole: it is filled under another name and then renamed.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from raycrp.errors import RunError

_SCRATCH_PREFIX = ".building."
_KEPT_S = 24 * 3600.0
"""A copy that nobody asked for within this time goes when the next one is made."""


@contextmanager
def locked_folder(kind: str) -> Iterator[Path]:
    """The folder of what is kept, for this process alone while the block lasts.

    The others of the node wait; a process that dies lets go of the lock.

    Args:
        kind: Of what is kept.

    Raises:
        RunError: If the folder belongs to another user.
    """
    folder = Path(tempfile.gettempdir()) / f"raycrp-{kind}-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RunError(
            f"{folder} belongs to another user; remove it, or set TMPDIR to a folder on the "
            "node's own disk"
        )
    with FileLock(folder / "lock"):
        yield folder


@contextmanager
def filled_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which has the name of ``target`` when the block ends without an error."""
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=target.parent))
    try:
        yield scratch
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def kept_copy(contents: Any, *, fill: Callable[[Path], None]) -> Path:
    """This node's copy of a folder, made by the first process that asks for it.

    Args:
        contents: JSON-ready; tells the folder and what is in it from all others.
        fill: Copies the folder's files into an empty one.
    """
    with locked_folder("copies") as folder:
        target = folder / digest(contents)
        if not target.exists():
            _delete_old(folder)
            with filled_folder(target) as scratch:
                fill(scratch)
        os.utime(target)
        return target


def digest(value: Any) -> str:
    """A name for a JSON-ready value, unlike those of other values."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]


def _delete_old(folder: Path) -> None:
    for path in folder.iterdir():
        is_old = time.time() - path.stat().st_mtime > _KEPT_S
        if path.is_dir() and (is_old or path.name.startswith(_SCRATCH_PREFIX)):
            shutil.rmtree(path, ignore_errors=True)
