"""The pyarrow schema of each table passed between stages.

``row_id`` numbers the task rows of a run from 0 and joins all tables. True reaction classes and
labels that came with the data live in ``TRUTH`` alone, which only reports and audits read.
"""

from enum import StrEnum

import pyarrow as pa


class Split(StrEnum):
    """The split of a task row."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class RtSplit(StrEnum):
    """The split of a training row inside elicitation (98:1:1 of D_train)."""

    TRAIN = "rt_train"
    VALID = "rt_valid"
    TEST = "rt_test"


class RtSource(StrEnum):
    """Where the reaction type in a prompt comes from."""

    CLUSTER = "cluster"
    CROSS_FITTED = "cross_fitted"
    PREDICTED = "predicted"
    NONE = "none"


TASK_ROWS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("reaction_key", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("rt_split", pa.string()),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("mapped_reaction", pa.string()),
    ]
)
"""Clean rows: canonical SMILES; ``rt_split`` is null outside the training split."""

REJECTS = pa.schema(
    [
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("source_id", pa.string()),
        pa.field("task", pa.string()),
        pa.field("split", pa.string()),
        pa.field("input", pa.string()),
        pa.field("output", pa.string()),
        pa.field("reject_reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
"""Rows that cannot be used, each with its named reason."""

TRUTH = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.string()),
    ]
)
"""True classes and labels that came with the data, one row each (long form)."""

TRIALS = pa.schema(
    [
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("encoding", pa.string(), nullable=False),
        pa.field("num_clusters", pa.int32(), nullable=False),
        pa.field("accuracy", pa.float64(), nullable=False),
        pa.field("majority_rate", pa.float64(), nullable=False),
        pa.field("kappa", pa.float64(), nullable=False),
        pa.field("information_bits", pa.float64(), nullable=False),
        pa.field("effective_types", pa.float64(), nullable=False),
        pa.field("smallest_share", pa.float64(), nullable=False),
        pa.field("num_rounds", pa.int32(), nullable=False),
        pa.field("best_round", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("is_best", pa.bool_(), nullable=False),
        pa.field("num_rows", pa.int64(), nullable=False),
        pa.field("accuracy_low", pa.float64(), nullable=False),
        pa.field("accuracy_high", pa.float64(), nullable=False),
        pa.field("calibration_error", pa.float64(), nullable=False),
        pa.field("has_collapsed", pa.bool_(), nullable=False),
        pa.field("encoder_passes", pa.int32(), nullable=False),
        pa.field("cpu_seconds", pa.float64(), nullable=False),
        pa.field("is_probe", pa.bool_(), nullable=False),
    ]
)
"""One row a trial of the sweep; accuracies, with their 95 % intervals, are on the ``num_rows`` rows
of D'_valid, not trained on. Where only a probe was made of a pair, its figures stand here, and
``is_probe`` says so.
"""

REACTION_TYPES = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("reaction_type", pa.int32(), nullable=False),
    ]
)
"""Cluster labels of the best trial of each task; D_train rows only."""

_CHANGE = (pa.field("name", pa.string()), pa.field("kind", pa.string()))

RT_CARDS = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("encoding", pa.string(), nullable=False),
        pa.field("num_types", pa.int32(), nullable=False),
        pa.field("reaction_type", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field(
            "frequent_changes",
            pa.list_(pa.struct([*_CHANGE, pa.field("share", pa.float64())])),
            nullable=False,
        ),
        pa.field(
            "specific_changes",
            pa.list_(
                pa.struct(
                    [*_CHANGE, pa.field("lift", pa.float64()), pa.field("share", pa.float64())]
                )
            ),
            nullable=False,
        ),
        pa.field("central", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row a reaction type of each task's best trial: what it stands for, in words and reactions.

``size`` and ``share`` are of D_train's rows. A change's ``share`` is of the type's reactions,
``lift`` its smoothed ratio to the share elsewhere; ``kind`` is a ``chem.changes.ChangeKind``.
``central`` are reaction SMILES, the closest to the type's centre first. Tasks that share their
clustering share names, changes and central reactions.
"""

ANNOTATIONS = pa.schema(
    [
        *TASK_ROWS,
        pa.field("reaction_type", pa.int32(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Task rows with the reaction type that LLM-RT names from the input alone (Eq 9)."""

PROMPTS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("reaction_key", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("template_id", pa.string(), nullable=False),
        pa.field("reaction_type", pa.int32()),
        pa.field("rt_source", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("mapped_reaction", pa.string()),
    ]
)
"""Enhanced prompts (Eq 12): ``prompt`` is the whole text LLM-CRP reads, the input included."""

PREDICTIONS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("reaction_key", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("reaction_type", pa.int32()),
        pa.field("template_id", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("predictions", pa.list_(pa.string()), nullable=False),
        pa.field("log_probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("round_trips", pa.list_(pa.bool_())),
    ]
)
"""Answers of the search, best first, as decoded (not canonicalised); ``round_trips`` says which of
them the forward task turns back into the input, null where that was not asked."""

ASKED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("input", pa.string()),
        pa.field("broken", pa.string()),
    ]
)
"""Inputs of a prediction job as read; ``broken`` says why a row could not be."""

ANSWERED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("input", pa.string()),
        pa.field("task", pa.string(), nullable=False),
        pa.field(
            "reaction_types",
            pa.list_(pa.struct([("name", pa.string()), ("probability", pa.float64())])),
            nullable=False,
        ),
        pa.field("template", pa.string()),
        pa.field(
            "answers",
            pa.list_(
                pa.struct(
                    [
                        ("smiles", pa.string()),
                        ("log_probability", pa.float64()),
                        ("confidence", pa.float64()),
                        ("is_valid", pa.bool_()),
                        ("is_input", pa.bool_()),
                        ("has_new_atoms", pa.bool_()),
                        ("passes_round_trip", pa.bool_()),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("reject_reason", pa.string()),
        pa.field("reject_detail", pa.string()),
    ]
)
"""Answers of a prediction job, different and best first; a rejected row has none and a reason."""

PREDICTION_REJECTS = pa.schema(
    [ANSWERED.field(name) for name in ("row", "id", "input", "reject_reason", "reject_detail")]
)
"""Rows of a prediction job that were not answered."""

SCORES = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("block", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("num_rows", pa.int64(), nullable=False),
        pa.field("num_reactions", pa.int64(), nullable=False),
    ]
)
"""One row a task, block and metric, with a 95 % interval; task ``all`` is the three together."""


def embeddings_schema(dim: int) -> pa.Schema:
    """Schema of the embed stage's table.

    Args:
        dim: Length of each vector.
    """
    vector = pa.list_(pa.float32(), dim)
    return pa.schema(
        [
            pa.field("row_id", pa.int64(), nullable=False),
            pa.field("input_vector", vector, nullable=False),
            pa.field("output_vector", vector, nullable=False),
        ]
    )
