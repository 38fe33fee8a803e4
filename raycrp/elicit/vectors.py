"""Vectors of the rows of a task, whole in memory or block by block."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Encoding


@dataclass(frozen=True)
class Block:
    """Vectors of some rows.

    Args:
        places: Positions of the rows in their task, shape ``(num_rows,)``.
        inputs: Vectors of the inputs, shape ``(num_rows, dim)``, float32.
        outputs: Vectors of the outputs, same shape.
        features: Vectors of the reactions that do not come from LLM-RT, by the encoding that takes
            them, each of shape ``(num_rows, feature_dim)``, float32.
    """

    places: IntArray
    inputs: FloatArray
    outputs: FloatArray
    features: Mapping[Encoding, FloatArray] = field(default_factory=dict)


class Vectors(Protocol):
    """Input and output vectors of all rows of a task."""

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        ...

    def blocks(self) -> Iterator[Block]:
        """All rows in blocks, each row once, in the same order every time."""
        ...

    def take_inputs(self, places: IntArray) -> FloatArray:
        """Input vectors of some rows, shape ``(len(places), dim)``.

        Args:
            places: Positions of the rows, in any order.
        """
        ...


@dataclass(frozen=True)
class ArrayVectors:
    """Vectors in two arrays, which may be mapped from files.

    Args:
        inputs: Shape ``(num_rows, dim)``, float32.
        outputs: Same shape.
        features: As in ``Block``.
        rows_per_block: Rows of one block at most.
    """

    inputs: FloatArray
    outputs: FloatArray
    features: Mapping[Encoding, FloatArray] = field(default_factory=dict)
    rows_per_block: int = 65_536

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return len(self.inputs)

    def blocks(self) -> Iterator[Block]:
        """Slices of the arrays."""
        for first in range(0, self.num_rows, self.rows_per_block):
            part = slice(first, first + self.rows_per_block)
            inputs = np.asarray(self.inputs[part])
            yield Block(
                places=np.arange(first, first + len(inputs)),
                inputs=inputs,
                outputs=np.asarray(self.outputs[part]),
                features={name: values[part] for name, values in self.features.items()},
            )

    def take_inputs(self, places: IntArray) -> FloatArray:
        """Input vectors of some rows."""
        return np.asarray(self.inputs[places])


@dataclass(frozen=True)
class RenewedVectors:
    """Vectors by a later encoder; features stay as they were.

    Args:
        inputs: Shape ``(num_rows, dim)``, float32.
        outputs: Same shape.
        before: The vectors they take the place of.
    """

    inputs: FloatArray
    outputs: FloatArray
    before: Vectors

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return len(self.inputs)

    def blocks(self) -> Iterator[Block]:
        """The blocks of the vectors before, with the new ones in them."""
        for block in self.before.blocks():
            yield replace(
                block,
                inputs=np.asarray(self.inputs[block.places]),
                outputs=np.asarray(self.outputs[block.places]),
            )

    def take_inputs(self, places: IntArray) -> FloatArray:
        """Input vectors of some rows."""
        return np.asarray(self.inputs[places])
