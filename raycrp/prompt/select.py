"""Which of its task's instructions a row is given (Eq 10-11), and the two controls."""

from collections.abc import Sequence

import numpy as np


def adaptability(input_vectors: np.ndarray, *, template_vectors: np.ndarray) -> np.ndarray:
    """How well each template suits each row.

    Args:
        input_vectors: Mean-pooled embeddings of the inputs, shape ``(num_rows, dim)``.
        template_vectors: Those of one task's templates, shape ``(num_templates, dim)``.

    Returns:
        Minus the Euclidean distance, shape ``(num_rows, num_templates)``, float32; 0 is best.

    Raises:
        ValueError: If the vectors differ in length.

    Source:
        Eq 10.
    """
    if input_vectors.shape[1] != template_vectors.shape[1]:
        raise ValueError(
            f"inputs have {input_vectors.shape[1]} dimensions, "
            f"templates {template_vectors.shape[1]}"
        )
    columns = [np.linalg.norm(input_vectors - vector, axis=1) for vector in template_vectors]
    distances: np.ndarray = np.stack(columns, axis=1)
    return -distances.astype(np.float32)


def choose_instructions(scores: np.ndarray) -> np.ndarray:
    """Number of the best template of each row; the first one on a tie.

    Args:
        scores: From `adaptability`, shape ``(num_rows, num_templates)``.

    Returns:
        Shape ``(num_rows,)``, int64, values in ``[0, num_templates)``.

    Source:
        Eq 11.
    """
    choices: np.ndarray = np.argmax(scores, axis=1)
    return choices


def random_instructions(row_ids: Sequence[int], *, num_templates: int, seed: int) -> np.ndarray:
    """Control: a template drawn at random, always the same one for a row and seed.

    Args:
        row_ids: Numbers of the rows, at least 0.
        num_templates: Templates to draw from.
        seed: Seed of the run.

    Returns:
        Shape ``(num_rows,)``, int64, values in ``[0, num_templates)``.
    """
    draws = [np.random.default_rng((seed, row)).integers(num_templates) for row in row_ids]
    return np.array(draws, dtype=np.int64)


def fixed_instructions(num_rows: int) -> np.ndarray:
    """Control: every row gets its task's first template.

    Args:
        num_rows: Number of rows.

    Returns:
        Zeros of shape ``(num_rows,)``, int64.
    """
    return np.zeros(num_rows, dtype=np.int64)
