"""The run folder: where it is, files that appear whole or not at all, completion markers."""

import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raycrp.errors import RunError
from raycrp.node_disk import kept_copy

SUCCESS = "_SUCCESS.json"
STARTED = "_STARTED.json"
SHARED = "shared.json"


@dataclass(frozen=True)
class RunFolder:
    """One run's files, on a local disk or on object storage.

    All paths are relative to the run folder and use ``/``. The object pickles to Ray workers.
    A folder may share finished stages of another one: their files are read from there.

    Args:
        storage: Local folder or ``pyarrow.fs`` URI that holds the run folders.
        name: Name of the run.
    """

    storage: str
    name: str

    @property
    def is_local(self) -> bool:
        """Whether the run folder is on a local (or mounted) disk."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @cached_property
    def filesystem(self) -> fs.FileSystem:
        """The file system of the storage, for pyarrow and Ray Data."""
        return self._resolved[0]

    @cached_property
    def root(self) -> str:
        """The run folder as a path inside ``filesystem``."""
        return f"{self._resolved[1].rstrip('/')}/{self.name}"

    def path(self, relative: str = "") -> str:
        """A path inside ``filesystem``, as pyarrow and Ray Data want it."""
        root = self.shared.get(relative.partition("/")[0], self.root)
        return f"{root}/{relative}".rstrip("/")

    def uri(self, relative: str = "") -> str:
        """A path or URI that Ray Train and Tune take as ``storage_path``."""
        if self.is_local:
            return self.path(relative)
        base, mark, options = self.storage.partition("?")
        if relative.partition("/")[0] in self.shared:
            base = f"{base.partition('://')[0]}://{self.path(relative)}"
        else:
            base = f"{base.rstrip('/')}/{self.name}/{relative}".rstrip("/")
        return f"{base}{mark}{options}"

    @cached_property
    def shared(self) -> dict[str, str]:
        """Root of the run folder that holds a stage's files, by stages of other folders."""
        path = f"{self.root}/{SHARED}"
        if self.filesystem.get_file_info(path).type == fs.FileType.NotFound:
            return {}
        with self.filesystem.open_input_stream(path) as stream:
            stages: dict[str, str] = json.loads(stream.read())
        return {
            stage: posixpath.normpath(posixpath.join(self.root, other))
            for stage, other in stages.items()
        }

    def exists(self, relative: str = "") -> bool:
        """Whether a file or folder is there."""
        return bool(self.filesystem.get_file_info(self.path(relative)).type != fs.FileType.NotFound)

    def list_names(self, relative: str = "") -> list[str]:
        """Sorted names inside a folder; empty if there is none."""
        return [file.base_name for file in self.list_files(relative)]

    def list_files(self, relative: str = "") -> list[fs.FileInfo]:
        """What is inside a folder, by name, with sizes and times; empty if there is none.

        Names that begin with a dot are left out: a writer that is killed leaves such a file.
        """
        selector = fs.FileSelector(self.path(relative), allow_not_found=True)
        files = self.filesystem.get_file_info(selector)
        shown = (file for file in files if not file.base_name.startswith("."))
        return sorted(shown, key=lambda file: str(file.base_name))

    def delete(self, relative: str) -> None:
        """Remove a file or folder if it is there."""
        self._check_own(relative)
        kind = self.filesystem.get_file_info(self.path(relative)).type
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(relative))
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path(relative))

    def read_bytes(self, relative: str) -> bytes:
        """Contents of a file.

        Raises:
            RunError: If it is not there.
        """
        try:
            with self.filesystem.open_input_stream(self.path(relative)) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise RunError(f"{self.uri(relative)} is missing; run its stage again") from error

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Write a file that appears whole or not at all."""
        self._check_own(relative)
        if self.is_local:
            with whole_file(Path(self.path(relative))) as stream:
                stream.write(data)
            return
        with self.filesystem.open_output_stream(self.path(relative)) as stream:
            stream.write(data)

    def read_json(self, relative: str) -> Any:
        """A JSON file's value.

        Raises:
            RunError: If the file is not there.
        """
        return json.loads(self.read_bytes(relative))

    def write_json(self, relative: str, value: Any) -> None:
        """Write a value as indented JSON, whole or not at all."""
        self.write_bytes(relative, (json.dumps(value, indent=2) + "\n").encode())

    def read_table(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file, or all Parquet files of a folder."""
        return pq.read_table(self.path(relative), columns=columns, filesystem=self.filesystem)

    def num_rows(self, relative: str) -> int:
        """Rows of a Parquet file, or of all Parquet files of a folder, from the footers."""
        if relative.endswith(".parquet"):
            return int(pq.read_metadata(self.path(relative), filesystem=self.filesystem).num_rows)
        return sum(self.num_rows(f"{relative}/{name}") for name in self.list_names(relative))

    def write_table(self, relative: str, table: pa.Table) -> None:
        """Write one Parquet file, whole or not at all."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self.write_bytes(relative, sink.getvalue().to_pybytes())

    def local_dir(self, relative: str) -> Path:
        """A folder as local files: itself on a local disk, else a copy that the node shares.

        Raises:
            RunError: If it is not there.
        """
        if not self.exists(relative):
            raise RunError(f"{self.uri(relative)} is missing; run its stage again")
        if self.is_local:
            return Path(self.path(relative))
        folder = self.path(relative)
        selector = fs.FileSelector(folder, recursive=True)
        files = sorted(self.filesystem.get_file_info(selector), key=lambda file: str(file.path))
        contents = [(file.path, file.size, file.mtime_ns) for file in files if file.is_file]
        return kept_copy(
            [self.uri(relative), contents],
            fill=lambda target: copy_folder(
                self.filesystem, folder, target=(fs.LocalFileSystem(), str(target))
            ),
        )

    @contextmanager
    def new_local_dir(self, relative: str) -> Iterator[Path]:
        """A local folder to fill, which takes the place of ``relative`` when the block ends."""
        self._check_own(relative)
        if self.is_local:
            final = Path(self.path(relative))
            final.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        else:
            scratch = Path(tempfile.mkdtemp(prefix="raycrp-"))
        try:
            yield scratch
            self.delete(relative)
            if self.is_local:
                scratch.chmod(0o755)
                scratch.replace(final)
            else:
                target = (self.filesystem, self.path(relative))
                copy_folder(fs.LocalFileSystem(), str(scratch), target=target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @cached_property
    def _resolved(self) -> tuple[fs.FileSystem, str]:
        if "://" not in self.storage:
            return fs.LocalFileSystem(), str(Path(self.storage).expanduser().resolve())
        try:
            filesystem, base = fs.FileSystem.from_uri(self.storage)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(f"run.storage '{self.storage}' cannot be opened: {error}") from error
        return filesystem, base

    def _check_own(self, relative: str) -> None:
        stage = relative.partition("/")[0]
        if stage in self.shared:
            raise RunError(
                f"{self.path(stage)} is shared by {self.root}, which must not change it; delete "
                f"{self.root}/{SHARED} to let the run make its own"
            )

    def __getstate__(self) -> dict[str, str]:
        # Ray's workers may stand in another folder, where a relative storage means another place.
        storage = self.root.rpartition("/")[0] if self.is_local else self.storage
        return {"storage": storage, "name": self.name}


def split_folder(text: str) -> tuple[str, str]:
    """Where a folder lies and its name, such as ``runs`` and ``demo`` of ``runs/demo``.

    Args:
        text: A path or ``pyarrow.fs`` URI; options behind a question mark stay with the storage.

    Returns:
        Storage and name; the name is empty where nothing is left for one of them.
    """
    if "://" not in text:
        storage, _, name = text.rstrip("/").rpartition("/")
        return storage or ("/" if text.startswith("/") else "."), name
    base, mark, options = text.partition("?")
    storage, _, name = base.rstrip("/").rpartition("/")
    return f"{storage}{mark}{options}", "" if storage.endswith(":/") else name


def reachable(folder: RunFolder) -> RunFolder:
    """A folder whose storage answers; whether the folder is there is another matter.

    Args:
        folder: A run folder, or any other.

    Raises:
        RunError: If the storage cannot be reached, or gives no right to look.
    """
    try:
        folder.exists()
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"'{folder.name}' in {folder.storage} cannot be opened: {reason}") from error
    return folder


def copy_folder(
    filesystem: fs.FileSystem, folder: str, *, target: tuple[fs.FileSystem, str]
) -> None:
    """Copy a folder's files; pyarrow alone makes no folder for files without folders among them.

    Args:
        filesystem: Where the folder is.
        folder: Path inside ``filesystem``.
        target: File system and path of the copy; what is there already stays.
    """
    target[0].create_dir(target[1], recursive=True)
    fs.copy_files(folder, target[1], source_filesystem=filesystem, destination_filesystem=target[0])


def share_stages(run: RunFolder, *, stages: Sequence[str], base: RunFolder) -> RunFolder:
    """Let a run folder read finished stages of another one instead of making its own.

    Args:
        run: The run folder that gets them.
        stages: Names of the stages.
        base: The run folder that has them, on the same storage.

    Returns:
        The run folder, as everyone sees it from now on.
    """
    others = {stage: posixpath.relpath(base.path(stage), run.root) for stage in stages}
    roots = {stage: posixpath.dirname(other) for stage, other in others.items()}
    run.write_json(SHARED, roots)
    return RunFolder(run.storage, run.name)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A local file to write, which takes the place of ``path`` when the block ends.

    It appears whole or not at all: where the block fails, what was there stays.

    Args:
        path: The file; its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
