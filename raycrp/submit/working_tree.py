"""What of the working tree goes to a cluster with a job, and whether that is small enough."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from raycrp.errors import ClusterError

EXCLUDES = ("/data/", "/runs/")
"""Left out beside what ``.gitignore`` and ``.rayignore`` name; patterns as in those files."""

MAX_BYTES = 100 * 2**20

_NUM_LARGEST = 5
_MIB = 2**20


def files_to_send(folder: Path) -> dict[str, int]:
    """Files that a job takes along, as Ray itself will choose them.

    Args:
        folder: The working tree.

    Returns:
        Size in bytes by path relative to the tree, with ``/``.

    Raises:
        ClusterError: If the folder is not there.
    """
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    if not folder.is_dir():
        raise ClusterError(f"the working tree {folder} is not a folder")
    root = folder.absolute()
    sizes: dict[str, int] = {}

    def visit(path: Path) -> None:
        """Note a file's size; folders hold none."""
        if path.is_file():
            sizes[path.relative_to(root).as_posix()] = path.stat().st_size

    excludes = [*ray_constants.get_runtime_env_default_excludes(), *EXCLUDES]
    takes_gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    _dir_travel(
        root,
        [_get_excludes(root, excludes)],
        visit,
        include_gitignore=takes_gitignore,
        logger=logging.Logger(__name__, logging.WARNING),
    )
    return sizes


def check_size(sizes: Mapping[str, int], *, max_bytes: int = MAX_BYTES) -> None:
    """Refuse a working tree that is too large to be sent.

    Args:
        sizes: Size in bytes of each file.
        max_bytes: Largest sum allowed.

    Raises:
        ClusterError: Naming what is largest.
    """
    total = sum(sizes.values())
    if total <= max_bytes:
        return
    parts: Counter[str] = Counter()
    for path, size in sizes.items():
        top, slash, _ = path.partition("/")
        parts[top + slash] += size
    largest = ", ".join(
        f"{name} {size / _MIB:.1f} MiB" for name, size in parts.most_common(_NUM_LARGEST)
    )
    raise ClusterError(
        f"the working tree is too large: {total / _MIB:.1f} MiB would be sent, at most "
        f"{max_bytes / _MIB:.1f} MiB; largest: {largest}; name what the job does not need in "
        ".rayignore, and bring data through shared storage"
    )
