"""Ray Data jobs over tables of the run folder: sharded, resumable, the same on any cluster.

A source table is cut into shards of a fixed number of rows. An actor pool takes shards, and each
becomes one Parquet file that appears whole or not at all. What a shard holds never depends on the
number of actors, on retries or on where a killed run left off, so neither does the result; a
shard that is already there is not computed again, and none can be written twice.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from raycrp import errors
from raycrp.prometheus import note_progress
from raycrp.ray_session import check_cluster_has
from raycrp.run import RunFolder

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 10.0
THREADS_PER_ACTOR = 1
"""An actor has one CPU; a fixed number also keeps the results the same bit for bit."""

TableFunction = Callable[[pa.Table], pa.Table]
"""Takes a shard's rows and returns as many rows, in any order."""


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of one Parquet file.

    Args:
        source: Path of the file, relative to the run folder.
        offset: First row.
        length: Number of rows.
        target: Path of the output file, relative to the run folder.
    """

    source: str
    offset: int
    length: int
    target: str


def map_shards(
    run: RunFolder,
    *,
    tables: Mapping[str, str],
    function: Callable[..., TableFunction],
    arguments: Mapping[str, Any],
    schema: pa.Schema,
    rows_per_shard: int,
    num_actors: int = 1,
    gpus_per_actor: float = 0,
) -> dict[str, int]:
    """Apply a table function, built once per actor, to every shard of one or more tables.

    Args:
        run: The run folder; workers read and write it directly.
        tables: Output folder by input folder of Parquet files, relative to the run folder.
        function: Class or factory whose instances map a shard's table to the output table.
        arguments: Keyword arguments of ``function``, small and picklable.
        schema: Schema that the output is cast to.
        rows_per_shard: Rows of a shard at most.
        num_actors: Actors at once; 0 works in the calling process, without Ray.
        gpus_per_actor: GPUs of each actor.

    Returns:
        Rows by input folder, written by this and earlier attempts.

    Raises:
        RunError: If the rows written are not as many as the rows read.
    """
    started = time.monotonic()
    shards = list_shards(run, tables=tables, rows_per_shard=rows_per_shard)
    present = {f"{folder}/{name}" for folder in tables.values() for name in run.list_names(folder)}
    missing = [shard for shard in shards if shard.target not in present]
    worker_arguments = {
        "run": run,
        "function": function,
        "arguments": dict(arguments),
        "schema": schema,
    }
    if missing and not num_actors:
        worker = _ShardWorker(**worker_arguments)
        for shard in missing:
            worker.write_shard(shard)
    elif missing:
        _run_job(
            missing,
            num_done=sum(shard.length for shard in shards if shard.target in present),
            worker_arguments=worker_arguments,
            num_actors=min(num_actors, len(missing)),
            gpus_per_actor=gpus_per_actor,
        )
    _check_counts(run, shards)
    logger.info(
        "%s: %d rows in %d shards (%d already there), %.1f s",
        ", ".join(dict.fromkeys(tables.values())),
        sum(shard.length for shard in shards),
        len(shards),
        len(shards) - len(missing),
        time.monotonic() - started,
    )
    return {
        source: sum(shard.length for shard in shards if shard.source.startswith(f"{source}/"))
        for source in tables
    }


def list_shards(run: RunFolder, *, tables: Mapping[str, str], rows_per_shard: int) -> list[Shard]:
    """Cut tables into shards; the same files give the same shards.

    Args:
        run: The run folder.
        tables: Output folder by input folder.
        rows_per_shard: Rows of a shard at most.
    """
    shards: list[Shard] = []
    numbers: Counter[str] = Counter()
    for folder, target in tables.items():
        for name in run.list_names(folder):
            source = f"{folder}/{name}"
            num_rows = run.num_rows(source)
            for offset in range(0, num_rows, rows_per_shard):
                length = min(rows_per_shard, num_rows - offset)
                file = f"{target}/shard-{numbers[target]:06d}.parquet"
                shards.append(Shard(source, offset, length, file))
                numbers[target] += 1
    return shards


def _check_counts(run: RunFolder, shards: Sequence[Shard]) -> None:
    expected: Counter[str] = Counter()
    for shard in shards:
        expected[shard.target.rpartition("/")[0]] += shard.length
    for target, num_rows in expected.items():
        num_written = run.num_rows(target)
        if num_written != num_rows:
            raise errors.RunError(
                f"{run.uri(target)} holds {num_written} rows, expected {num_rows}"
            )


def _run_job(
    shards: Sequence[Shard],
    *,
    num_done: int,
    worker_arguments: dict[str, Any],
    num_actors: int,
    gpus_per_actor: float,
) -> None:
    # Ray's running commentary goes to its own log files; a line of ours says how far we are.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    dataset = ray.data.from_items(
        [asdict(shard) for shard in shards], override_num_blocks=len(shards)
    )
    stage = shards[0].target.partition("/")[0]
    # Ray Data itself would wait for the GPU without a word.
    check_cluster_has(
        {"GPU": gpus_per_actor},
        who=stage,
        what="each actor",
        remedy="lower gpus_per_actor or add nodes",
    )
    reports = dataset.map_batches(
        _ShardWorker,
        fn_constructor_kwargs=worker_arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_actors),
        num_cpus=1,
        num_gpus=gpus_per_actor or None,
    )
    run_name = worker_arguments["run"].name
    num_wanted = num_done + sum(shard.length for shard in shards)
    last_line, num_rows = time.monotonic(), num_done
    for number, report in enumerate(reports.iter_rows(), start=1):
        if report["error_type"]:
            raise getattr(errors, report["error_type"])(report["message"])
        num_rows += report["length"]
        note_progress(run=run_name, stage=stage, rows=num_rows, wanted=num_wanted)
        if time.monotonic() - last_line >= PROGRESS_INTERVAL_S:
            last_line = time.monotonic()
            logger.info("%s: %d of %d shards", report["target"], number, len(shards))


class _ShardWorker:
    """Reads a shard, applies the function, writes the result."""

    def __init__(
        self,
        run: RunFolder,
        function: Callable[..., TableFunction],
        arguments: dict[str, Any],
        schema: pa.Schema,
    ) -> None:
        self._run = run
        self._schema = schema
        self._function = function(**arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Errors of ours are reported as rows, since Ray Data would hide them in its own."""
        reports = []
        for values in batch.to_pylist():
            report = {**values, "error_type": "", "message": ""}
            try:
                self.write_shard(Shard(**values))
            except errors.RaycrpError as error:
                report.update(error_type=type(error).__name__, message=str(error))
            reports.append(report)
        return pa.Table.from_pylist(reports)

    def write_shard(self, shard: Shard) -> None:
        """Compute and write one shard."""
        rows = read_shard(self._run, shard)
        result = self._function(rows)
        if result.num_rows != rows.num_rows:
            raise errors.RunError(f"{shard.target}: {rows.num_rows} rows in, {result.num_rows} out")
        result = result.select(self._schema.names).cast(self._schema)
        self._run.write_table(shard.target, result)


def read_shard(run: RunFolder, shard: Shard) -> pa.Table:
    """Rows of a shard; only the row groups that hold them are read."""
    with pq.ParquetFile(run.path(shard.source), filesystem=run.filesystem) as file:
        first, groups, start = 0, [], None
        for group in range(file.num_row_groups):
            num_rows = file.metadata.row_group(group).num_rows
            if first + num_rows > shard.offset and first < shard.offset + shard.length:
                start = first if start is None else start
                groups.append(group)
            first += num_rows
        table = file.read_row_groups(groups)
    return table.slice(shard.offset - (start or 0), shard.length)
