from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raycrp.choices import Encoding, Task
from raycrp.elicit import cards
from raycrp.elicit.cards import NO_REACTIONS, describe_types
from raycrp.elicit.final import TYPES
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.trial import Trial, types_table
from raycrp.elicit.vectors import ArrayVectors
from raycrp.run import RunFolder

TRIAL = Trial(Task.FORWARD, Encoding.CHANGE, 3)
CHAINS = ["C" * length for length in range(2, 14)]
AMIDES = [(f"{chain}C(=O)Cl.CN", f"{chain}C(=O)NC") for chain in CHAINS]
REDUCTIONS = [(f"{chain}[N+](=O)[O-]", f"{chain}N") for chain in CHAINS]
TEXTS = [text for pair in zip(AMIDES, REDUCTIONS, strict=True) for text in pair]
LABELS = np.array([0, 2] * len(CHAINS))


@pytest.fixture
def rows():
    vectors = np.zeros((len(TEXTS), 2), dtype=np.float32)
    places = np.arange(len(TEXTS))
    return TaskRows(
        task=Task.FORWARD,
        row_ids=places,
        reaction_keys=pa.chunked_array([[str(i) for i in places]]),
        inputs=pa.chunked_array([[before for before, _ in TEXTS]]),
        outputs=pa.chunked_array([[after for _, after in TEXTS]]),
        vectors=ArrayVectors(vectors, vectors),
        train=places,
        valid=places[:0],
        test=places[:0],
    )


@pytest.fixture
def run(tmp_path, rows):
    """Types as written by the stage; amides are the more central the longer their chain."""
    run = RunFolder(str(tmp_path), "run")
    table = types_table(TRIAL, rows=rows, labels=LABELS)
    distances = np.arange(len(TEXTS), 0, -1, dtype=np.float32)
    run.write_table(TRIAL.types_path, table.append_column("distance", pa.array(distances)))
    run.write_table(f"{TYPES}/forward.parquet", table)
    return run


def test_types_are_told_in_words_and_reactions(run, rows):
    amides, none, reductions = describe_types(TRIAL, rows=rows, run=run, seed=0)
    assert amides["name"] == "C-N made, amide gained"
    assert reductions["name"] == "N-O broken, primary amine gained"
    frequent = {each["name"]: each for each in amides["frequent_changes"]}
    assert frequent["C-N made"] == {"name": "C-N made", "kind": "bond made", "share": 1.0}
    assert "nitro lost" not in frequent
    # Smoothed: all 12 of 12 here, none of 12 elsewhere, half a reaction added on either side.
    assert amides["specific_changes"][0]["lift"] == pytest.approx((12.5 / 13) / (0.5 / 13))
    assert none == {
        "name": NO_REACTIONS,
        "frequent_changes": [],
        "specific_changes": [],
        "central": [],
    }


def test_the_ten_closest_reactions_are_shown_closest_first(run, rows):
    amides, _, _ = describe_types(TRIAL, rows=rows, run=run, seed=0)
    assert amides["central"] == [f"{before}>>{after}" for before, after in AMIDES[::-1][:10]]


def test_a_reaction_is_shown_once(run, rows):
    before, after = (pa.chunked_array([[text] * len(TEXTS)]) for text in AMIDES[0])
    same = replace(rows, inputs=before, outputs=after)
    amides, _, _ = describe_types(TRIAL, rows=same, run=run, seed=0)
    assert amides["central"] == [f"{AMIDES[0][0]}>>{AMIDES[0][1]}"]


def test_a_sample_of_a_large_type_tells_its_shares(run, rows, monkeypatch):
    whole = describe_types(TRIAL, rows=rows, run=run, seed=0)
    monkeypatch.setattr(cards, "_MAX_REACTIONS", 4)
    sampled = describe_types(TRIAL, rows=rows, run=run, seed=0)
    assert [card["name"] for card in sampled] == [card["name"] for card in whole]
    assert sampled[0]["frequent_changes"][0]["share"] == pytest.approx(1)
