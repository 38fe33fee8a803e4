from dataclasses import replace

import numpy as np
import pytest

from raycrp.choices import Encoding
from raycrp.elicit.encodings import encode_reactions, follows_llm_rt
from raycrp.elicit.vectors import Block

INPUTS = np.array([[1, 2], [3, 4]], dtype=np.float32)
OUTPUTS = np.array([[5, 7], [-1, 0.5]], dtype=np.float32)
BLOCK = Block(np.arange(2), INPUTS, OUTPUTS)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (Encoding.OUTPUT, [[5, 7], [-1, 0.5]]),
        (Encoding.DIFFERENCE, [[4, 5], [-4, -3.5]]),
        (Encoding.CONCAT, [[1, 2, 5, 7], [3, 4, -1, 0.5]]),
        (Encoding.INNER_PRODUCT, [[19], [-1]]),
        (Encoding.ELEMENTWISE_PRODUCT, [[5, 14], [-3, 2]]),
    ],
)
def test_encodings_by_hand(encoding, expected):
    encoded = encode_reactions(BLOCK, encoding=encoding)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == expected


def test_joined_parts_are_side_by_side_at_equal_length():
    features = {Encoding.CHANGE: np.array([[0, 0, 0], [0, 2, 0]], dtype=np.float32)}
    outputs = np.array([[4, 6], [3, 4.5]], dtype=np.float32)
    block = replace(BLOCK, outputs=outputs, features=features)
    encoded = encode_reactions(block, encoding=Encoding.DIFFERENCE_CHANGE)
    assert encoded == pytest.approx(np.array([[0.6, 0.8, 0, 0, 0], [0, 1, 0, 1, 0]]))
    assert encoded.dtype == np.float32


@pytest.mark.parametrize(
    ("encoding", "follows"),
    [
        (Encoding.CONCAT, True),
        (Encoding.CHANGE, False),
        (Encoding.DIFFERENCE_FINGERPRINT, True),
        (Encoding.FINGERPRINT_CHANGE, False),
    ],
)
def test_encodings_with_vectors_of_llm_rt_follow_it(encoding, follows):
    assert follows_llm_rt(encoding) is follows
