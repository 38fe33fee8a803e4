import numpy as np
import pytest

from raycrp.choices import Encoding
from raycrp.elicit.encodings import encode_reactions
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
