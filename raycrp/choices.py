"""The values a setting may take, one enumeration a question."""

from enum import StrEnum


class Task(StrEnum):
    """The three prediction tasks."""

    FORWARD = "forward"
    RETROSYNTHESIS = "retrosynthesis"
    REAGENT = "reagent"


class DataSource(StrEnum):
    """Where the reactions come from."""

    CORPUS = "corpus"
    MOL_INSTRUCTIONS = "mol_instructions"
    REACTIONS = "reactions"
    HUB = "hub"


class Notation(StrEnum):
    """How molecules are written in a file."""

    SMILES = "smiles"
    SELFIES = "selfies"


class LeakPolicy(StrEnum):
    """What happens to a training row whose reaction is in a validation or test split."""

    REJECT = "reject"
    REPORT = "report"


class Preset(StrEnum):
    """From-scratch T5 sizes."""

    TINY = "tiny"
    SMALL = "small"


class Encoding(StrEnum):
    """Which vectors describe a reaction to k-means (Eq 4)."""

    OUTPUT = "output"
    DIFFERENCE = "difference"
    CONCAT = "concat"
    INNER_PRODUCT = "inner_product"
    ELEMENTWISE_PRODUCT = "elementwise_product"
    FINGERPRINT = "fingerprint"
    CHANGE = "change"
    DIFFERENCE_FINGERPRINT = "difference_fingerprint"
    DIFFERENCE_CHANGE = "difference_change"
    FINGERPRINT_CHANGE = "fingerprint_change"


PAPER_ENCODINGS = (
    Encoding.OUTPUT,
    Encoding.DIFFERENCE,
    Encoding.CONCAT,
    Encoding.INNER_PRODUCT,
)
"""The four of the paper; the others are ours."""


class LabelerKind(StrEnum):
    """How LLM-RT names a reaction type."""

    HEAD = "head"
    T5 = "t5"


class Scope(StrEnum):
    """What a reaction type belongs to."""

    TASK = "task"
    REACTION = "reaction"


class Search(StrEnum):
    """How the pairs of encoding and N are searched."""

    GRID = "grid"
    HALVING = "halving"


class SelectionRule(StrEnum):
    """Which trial of the sweep is the best."""

    ACCURACY = "accuracy"
    FLOOR = "floor"
    INFORMATION = "information"


class InstructionChoice(StrEnum):
    """How a row's instruction is chosen among the task's templates."""

    ADAPTIVE = "adaptive"
    RANDOM = "random"
    FIXED = "fixed"
    NONE = "none"


class Fusion(StrEnum):
    """How instruction, reaction type and input come together."""

    TEXT = "text"
    HIDDEN = "hidden"


class TrainReactionType(StrEnum):
    """Where the reaction type in a training prompt comes from."""

    CLUSTER = "cluster"
    CROSS_FITTED = "cross_fitted"
    PREDICTED = "predicted"


class AuditSource(StrEnum):
    """Where the reaction type in a test prompt comes from, in an audit."""

    PREDICTED = "predicted"
    NONE = "none"
    SHUFFLED = "shuffled"
    CONSTANT = "constant"
    ORACLE = "oracle"


class AblationRow(StrEnum):
    """A row of the paper's tables: what the prompts of a model hold."""

    NO_RT = "no_rt"
    RT = "rt"
    RT_IA = "rt_ia"
    RT_IA_SECOND = "rt_ia_second"


class Precision(StrEnum):
    """Number format of training."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Decay(StrEnum):
    """How the step size falls after warm-up."""

    COSINE = "cosine"
    INVERSE_SQRT = "inverse_sqrt"
    CONSTANT = "constant"


class SelectBy(StrEnum):
    """Which validation of a training is the best."""

    LOSS = "loss"
    EXACT = "exact"


class Spelling(StrEnum):
    """How the molecules of training rows are written."""

    CANONICAL = "canonical"
    RANDOMIZED = "randomized"
    ALIGNED = "aligned"


class TooLong(StrEnum):
    """What happens to a training or validation row that is longer than a limit."""

    DROP = "drop"
    CUT = "cut"


class Launcher(StrEnum):
    """What starts the training workers."""

    RAY = "ray"
    LOCAL = "local"


class Device(StrEnum):
    """Where models run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class OutputFormat(StrEnum):
    """How predictions are written."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
