import numpy as np
import pytest

from raycrp.config import Encoding
from raycrp.elicit.encodings import encode_reactions

INPUTS = np.array([[1, 2], [3, 4]], dtype=np.float32)
OUTPUTS = np.array([[5, 7], [-1, 0.5]], dtype=np.float32)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (Encoding.OUTPUT, [[5, 7], [-1, 0.5]]),
        (Encoding.DIFFERENCE, [[4, 5], [-4, -3.5]]),
        (Encoding.CONCAT, [[1, 2, 5, 7], [3, 4, -1, 0.5]]),
        (Encoding.INNER_PRODUCT, [[19], [-1]]),
    ],
)
def test_encodings_by_hand(encoding, expected):
    encoded = encode_reactions(encoding, input_vectors=INPUTS, output_vectors=OUTPUTS)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == expected


def test_every_encoding_is_carried_out():
    for encoding in Encoding:
        encoded = encode_reactions(encoding, input_vectors=INPUTS, output_vectors=OUTPUTS)
        assert len(encoded) == 2


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(1, 2\)"):
        encode_reactions(Encoding.CONCAT, input_vectors=INPUTS, output_vectors=OUTPUTS[:1])
