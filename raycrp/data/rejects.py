"""Why a row cannot be used, by name."""

from enum import StrEnum

from raycrp.chem.molecules import MoleculeFault
from raycrp.chem.reactions import ReactionFault


class RejectReason(StrEnum):
    """Name of what makes a row unusable."""

    BROKEN_ROW = "broken_row"
    MISSING_FIELD = "missing_field"
    BAD_METADATA = "bad_metadata"
    BAD_ID = "bad_id"
    BAD_NOTATION = "bad_notation"
    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_SPLIT = "unknown_split"
    OTHER_TASK = "other_task"
    EMPTY_MOLECULE = MoleculeFault.EMPTY.value
    UNPARSABLE_MOLECULE = MoleculeFault.UNPARSABLE.value
    WHITESPACE = MoleculeFault.WHITESPACE.value
    TRAILING_TEXT = MoleculeFault.TRAILING_TEXT.value
    CONTROL_CHARACTER = MoleculeFault.CONTROL_CHARACTER.value
    INVISIBLE_CHARACTER = MoleculeFault.INVISIBLE_CHARACTER.value
    MOLECULE_TOO_LONG = MoleculeFault.TOO_LONG.value
    SELFIES_LOSS = MoleculeFault.SELFIES_LOSS.value
    BAD_REACTION = ReactionFault.BAD_REACTION.value
    NO_REACTION = ReactionFault.NO_REACTION.value
    EMPTY_OUTPUT = ReactionFault.EMPTY_OUTPUT.value
    DUPLICATE = "duplicate"
    LEAK = "leak"


UNCOUNTED = frozenset({RejectReason.OTHER_TASK, RejectReason.DUPLICATE, RejectReason.LEAK})
"""Reasons that say nothing against the quality of the data; no limit applies to them."""
