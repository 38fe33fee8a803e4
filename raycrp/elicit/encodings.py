"""Which vectors describe a reaction to k-means (Eq 4)."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from raycrp.config import Encoding

FloatArray = npt.NDArray[np.float32]


def encode_reactions(
    encoding: Encoding, *, input_vectors: FloatArray, output_vectors: FloatArray
) -> FloatArray:
    """Combine the vectors of each reaction's input and output.

    Args:
        encoding: How they are combined.
        input_vectors: Shape ``(num_rows, dim)``, float32.
        output_vectors: Shape ``(num_rows, dim)``, float32.

    Returns:
        Shape ``(num_rows, encoding_dim)``, float32: ``dim`` columns, twice as many for ``concat``,
        one for ``inner_product``.

    Raises:
        ValueError: If the two differ in shape.

    Source: Eq 4; the inner product is one number a row, as in the paper's code.
    """
    if input_vectors.shape != output_vectors.shape:
        raise ValueError(
            f"input vectors have shape {input_vectors.shape}, "
            f"output vectors {output_vectors.shape}; both must have the same"
        )
    return _COMBINE[encoding](input_vectors, output_vectors)


def _output(_: FloatArray, outputs: FloatArray) -> FloatArray:
    return outputs


def _difference(inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    return outputs - inputs


def _concat(inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    return np.concatenate([inputs, outputs], axis=1)


def _inner_product(inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    products: FloatArray = np.einsum("ij,ij->i", inputs, outputs, dtype=np.float32)
    return products[:, None]


_COMBINE: Mapping[Encoding, Callable[[FloatArray, FloatArray], FloatArray]] = {
    Encoding.OUTPUT: _output,
    Encoding.DIFFERENCE: _difference,
    Encoding.CONCAT: _concat,
    Encoding.INNER_PRODUCT: _inner_product,
}
