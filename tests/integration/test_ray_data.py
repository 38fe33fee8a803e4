import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raycrp.errors import RunError
from raycrp.ray_data import list_shards, map_shards, read_shard
from raycrp.run import RunFolder

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]
SCHEMA = pa.schema([pa.field("y", pa.int64())])


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path), "r")
    for part, first in enumerate((0, 250)):
        rows = pa.table({"x": list(range(first, first + 250))})
        run.write_table(f"in/part-{part}.parquet", rows)
    return run


class Triple:
    """Counts its calls in files, so that a test sees what was computed."""

    def __init__(self, calls_dir, kill_once=None):
        self.calls_dir = Path(calls_dir)
        self.kill_once = kill_once

    def __call__(self, rows):
        first = rows["x"][0].as_py()
        with (self.calls_dir / str(first)).open("a") as stream:
            stream.write("x")
        if self.kill_once is not None and not Path(self.kill_once).exists():
            Path(self.kill_once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pa.table({"y": pc.multiply(rows["x"], 3)})


class DropOne:
    def __call__(self, rows):
        return pa.table({"y": rows["x"]}).slice(1)


def run_job(run, target, calls_dir, *, num_actors=1, function=Triple, **arguments):
    calls_dir.mkdir(exist_ok=True)
    return map_shards(
        run,
        tables={"in": target},
        function=function,
        arguments={"calls_dir": str(calls_dir), **arguments},
        schema=SCHEMA,
        rows_per_shard=100,
        num_actors=num_actors,
    )


def test_the_number_of_actors_changes_nothing(run, tmp_path):
    assert run_job(run, "one", tmp_path / "c1", num_actors=1) == {"in": 500}
    assert run_job(run, "two", tmp_path / "c2", num_actors=2) == {"in": 500}
    names = run.list_names("one")
    assert names == [f"shard-{index:06d}.parquet" for index in range(6)]
    assert names == run.list_names("two")
    for name in names:
        assert run.read_bytes(f"one/{name}") == run.read_bytes(f"two/{name}")
    assert run.read_table("one")["y"].to_pylist() == [3 * x for x in range(500)]


def test_only_missing_shards_are_computed_again(run, tmp_path):
    run_job(run, "out", tmp_path / "calls")
    run.delete("out/shard-000002.parquet")
    run_job(run, "out", tmp_path / "calls")
    calls = {path.name: path.read_text() for path in (tmp_path / "calls").iterdir()}
    assert calls == {"0": "x", "100": "x", "200": "xx", "250": "x", "350": "x", "450": "x"}
    assert run.num_rows("out") == 500


def test_a_killed_actor_loses_nothing(run, tmp_path):
    flag = tmp_path / "killed"
    assert run_job(run, "out", tmp_path / "calls", kill_once=str(flag)) == {"in": 500}
    assert flag.exists()
    assert run.read_table("out")["y"].to_pylist() == [3 * x for x in range(500)]


def test_a_function_that_loses_rows_is_caught(run):
    with pytest.raises(RunError, match="100 rows in, 99 out"):
        map_shards(
            run,
            tables={"in": "out"},
            function=DropOne,
            arguments={},
            schema=SCHEMA,
            rows_per_shard=100,
        )


def test_a_target_with_foreign_rows_is_caught(run, tmp_path):
    run.write_table("out/extra.parquet", pa.table({"y": [1]}))
    with pytest.raises(RunError, match="holds 501 rows, expected 500"):
        run_job(run, "out", tmp_path / "calls")


def test_a_shard_reads_its_own_rows_across_row_groups(tmp_path):
    run = RunFolder(str(tmp_path), "r")
    run.write_bytes("in/.keep", b"")
    run.delete("in/.keep")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": list(range(10))}), run.path("in/a.parquet"), row_group_size=3)
    shards = list_shards(run, tables={"in": "out"}, rows_per_shard=4)
    assert [read_shard(run, shard)["x"].to_pylist() for shard in shards] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
