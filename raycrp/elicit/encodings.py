"""Which vectors describe a reaction to k-means (Eq 4).

A new encoding is a member of ``Encoding`` and a function here, one in ``features.py`` where it is
not made of LLM-RT's vectors, or an entry in ``JOINED``.
"""

from collections.abc import Callable, Mapping

import numpy as np

from raycrp.arrays import FloatArray
from raycrp.choices import Encoding
from raycrp.elicit.vectors import Block
from raycrp.errors import ElicitError


def encode_reactions(block: Block, *, encoding: Encoding) -> FloatArray:
    """Combine the vectors of each reaction.

    Args:
        block: Vectors of some rows.
        encoding: How they are combined.

    Returns:
        Shape ``(num_rows, encoding_dim)``, float32: ``dim`` columns, twice as many for ``concat``,
        one for ``inner_product``.

    Raises:
        ElicitError: If the encoding needs vectors that the block does not have.

    Source: Eq 4; the inner product is one number a row, as in the paper's code. That code
        encodes both texts as one for ``concat``, and projects all vectors to two dimensions at
        random; Eq 4 does neither, nor does this.
    """
    if encoding in JOINED:
        parts = [_unit_rows(encode_reactions(block, encoding=part)) for part in JOINED[encoding]]
        return np.concatenate(parts, axis=1)
    if encoding in _COMBINE:
        return _COMBINE[encoding](block)
    if encoding not in block.features:
        raise ElicitError(
            f"encoding {encoding} needs vectors that were not computed; have: "
            f"{', '.join([*_COMBINE, *block.features])}"
        )
    return block.features[encoding]


def sources(encoding: Encoding) -> tuple[Encoding, ...]:
    """The encodings that an encoding is joined of; itself where it is not joined.

    Args:
        encoding: The encoding.
    """
    return JOINED.get(encoding, (encoding,))


def follows_llm_rt(encoding: Encoding) -> bool:
    """Whether an encoding changes as LLM-RT learns, so that there is something to feed back.

    Args:
        encoding: The encoding.
    """
    return any(source in _COMBINE for source in sources(encoding))


def _unit_rows(vectors: FloatArray) -> FloatArray:
    """Rows at unit length, so that no part of a joined encoding outweighs the other; 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _output(block: Block) -> FloatArray:
    return block.outputs


def _difference(block: Block) -> FloatArray:
    return block.outputs - block.inputs


def _concat(block: Block) -> FloatArray:
    return np.concatenate([block.inputs, block.outputs], axis=1)


def _inner_product(block: Block) -> FloatArray:
    products: FloatArray = np.einsum("ij,ij->i", block.inputs, block.outputs, dtype=np.float32)
    return products[:, None]


def _elementwise_product(block: Block) -> FloatArray:
    return block.inputs * block.outputs


_COMBINE: Mapping[Encoding, Callable[[Block], FloatArray]] = {
    Encoding.OUTPUT: _output,
    Encoding.DIFFERENCE: _difference,
    Encoding.CONCAT: _concat,
    Encoding.INNER_PRODUCT: _inner_product,
    Encoding.ELEMENTWISE_PRODUCT: _elementwise_product,
}

JOINED: Mapping[Encoding, tuple[Encoding, Encoding]] = {
    Encoding.DIFFERENCE_FINGERPRINT: (Encoding.DIFFERENCE, Encoding.FINGERPRINT),
    Encoding.DIFFERENCE_CHANGE: (Encoding.DIFFERENCE, Encoding.CHANGE),
    Encoding.FINGERPRINT_CHANGE: (Encoding.FINGERPRINT, Encoding.CHANGE),
}
"""Encodings of two others side by side, each reaction's parts at equal length."""
