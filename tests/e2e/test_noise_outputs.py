"""A reaction type that has seen an output exists for training rows only."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from raycrp.schemas import Split

from .conftest import CONFIG

pytestmark = pytest.mark.e2e

HELD_OUT = (Split.VALIDATION, Split.TEST)


def replace_outputs(run, split):
    """Every output of the split gives way to a chain that has nothing to do with its input."""
    random = np.random.default_rng(0)
    for name in run.list_names(f"data/rows/{split}"):
        path = f"data/rows/{split}/{name}"
        table = run.read_table(path)
        noise = ["".join(random.choice(list("CNO"), 12)) for _ in range(table.num_rows)]
        place = table.schema.get_field_index("output")
        noisy = table.set_column(place, table.schema.field("output"), pa.array(noise))
        run.write_table(path, noisy)


def test_annotations_of_held_out_rows_do_not_depend_on_their_outputs(finished, command_line):
    plain, noisy = finished[0].run_folder, command_line.run_folder
    shutil.copytree(plain.path("data"), noisy.path("data"))
    for split in HELD_OUT:
        replace_outputs(noisy, split)
    result = command_line(
        "annotate",
        str(CONFIG),
        f"run.storage={command_line.storage}",
        "embed.num_actors=0",
        "annotate.num_actors=0",
    )
    assert result.returncode == 0, result.stderr[-4000:]
    for split in HELD_OUT:
        before, after = (
            run.read_table(f"annotate/{split}").sort_by("row_id") for run in (plain, noisy)
        )
        assert before.num_rows > 0
        assert not set(before["output"].to_pylist()) & set(after["output"].to_pylist())
        assert before.drop_columns(["output"]).equals(after.drop_columns(["output"]))
