from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raycrp.chem.changes import CHANGE_FEATURES
from raycrp.chem.fingerprints import difference_fingerprints
from raycrp.chem.reactions import Reaction
from raycrp.choices import Encoding
from raycrp.elicit.encodings import encode_reactions
from raycrp.elicit.features import FEATURES, FeatureMaker, features_dir
from raycrp.elicit.stored_vectors import load_vectors
from raycrp.elicit.vectors import ArrayVectors, Block
from raycrp.errors import ElicitError
from raycrp.run import RunFolder
from raycrp.schemas import embeddings_schema

ROWS = pa.table(
    {
        "row_id": [4, 5, 6],
        "task": ["forward", "retrosynthesis", "reagent"],
        "input": ["CCBr.N", "CCN", "CC(=O)O.CCO>>CCOC(C)=O"],
        "output": ["CCN", "CCBr.N", "O=S(=O)(O)O"],
    }
)
AMINATION = Reaction("CCBr.N", "", "CCN")
ESTER = Reaction("CC(=O)O.CCO", "", "CCOC(C)=O")


def test_every_task_describes_its_reaction():
    table = FeatureMaker(Encoding.FINGERPRINT)(ROWS)
    expected = difference_fingerprints([AMINATION, AMINATION, ESTER])
    assert table["row_id"].to_pylist() == [4, 5, 6]
    assert np.array(table["vector"].to_pylist()) == pytest.approx(expected, abs=1e-6)


def test_changes_are_told_from_the_reaction_whatever_the_task():
    table = FeatureMaker(Encoding.CHANGE)(ROWS)
    forward, retro, ester = (np.array(row) for row in table["vector"].to_pylist())
    made = [CHANGE_FEATURES[place] for place in np.flatnonzero(forward > 0)]
    assert (forward == retro).all()
    assert "carbon-hetero made" in made
    assert (forward != ester).any()


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    rows = [{"row_id": i, "input_vector": [i, 0], "output_vector": [0, i]} for i in (4, 5, 6)]
    table = pa.Table.from_pylist(rows, schema=embeddings_schema(2))
    run.write_table("embed/train/shard-000000.parquet", table)
    return run


def test_features_are_read_beside_the_vectors(run):
    table = FeatureMaker(Encoding.FINGERPRINT)(ROWS)
    run.write_table(f"{features_dir(Encoding.FINGERPRINT)}/shard-000000.parquet", table)
    vectors = load_vectors(
        run,
        row_ids=np.array([4, 6]),
        max_whole_rows=10,
        features=[Encoding.FINGERPRINT],
    )
    (block,) = vectors.blocks()
    encoded = encode_reactions(block, encoding=Encoding.FINGERPRINT)
    assert encoded == pytest.approx(difference_fingerprints([AMINATION, ESTER]), abs=1e-6)


def test_features_of_other_rows_are_refused(run):
    table = FeatureMaker(Encoding.FINGERPRINT)(ROWS.slice(1))
    run.write_table(f"{features_dir(Encoding.FINGERPRINT)}/shard-000000.parquet", table)
    with pytest.raises(ElicitError, match="holds other rows"):
        load_vectors(
            run,
            row_ids=np.array([4, 6]),
            max_whole_rows=10,
            features=[Encoding.FINGERPRINT],
        )


def test_an_encoding_whose_vectors_are_absent_is_named():
    block = Block(np.arange(1), np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(ElicitError, match=r"fingerprint needs vectors.*have: output"):
        encode_reactions(block, encoding=Encoding.FINGERPRINT)


def test_blocks_cut_features_as_they_cut_vectors():
    values = np.arange(10, dtype=np.float32)[:, None]
    vectors = ArrayVectors(
        values, values, features={Encoding.FINGERPRINT: values}, rows_per_block=4
    )
    for block in vectors.blocks():
        assert (block.features[Encoding.FINGERPRINT] == block.inputs).all()


def test_every_encoding_has_a_function(task_rows):
    (block,) = task_rows.vectors.blocks()
    features = dict.fromkeys(FEATURES, block.outputs)
    for encoding in Encoding:
        encoded = encode_reactions(replace(block, features=features), encoding=encoding)
        assert len(encoded) == task_rows.num_rows
