"""Reaction types in words: what is frequent in each, what is specific to it, and a short name."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log2

from raycrp.chem.changes import Change, ChangeKind, ReactionChange

NO_CHANGE = "no common change"
"""Name of a type without a change that a fair part of its reactions share."""

# Added to the reactions with a change and to those without, so that no share is 0 or 1.
_SMOOTHING = 0.5
# A name should hold for a fair part of what it names.
_MIN_NAMED_SHARE = 0.25
_STRUCTURE_KINDS = (
    frozenset({ChangeKind.BOND_MADE, ChangeKind.RING_MADE, ChangeKind.RING_OPENED}),
    frozenset({ChangeKind.BOND_CHANGED}),
    frozenset({ChangeKind.BOND_BROKEN}),
)
_GROUP_KINDS = frozenset({ChangeKind.GROUP_GAINED, ChangeKind.GROUP_LOST})


@dataclass(frozen=True, slots=True)
class ChangeShare:
    """How common a change is in a reaction type and elsewhere.

    Attributes:
        change: The change.
        share: Part of the type's reactions that show it, from 0 to 1.
        share_elsewhere: Part of the other reactions that show it; 0 where there are none.
        specificity: Smoothed share times the binary logarithm of its ratio to the smoothed share
            elsewhere, in bits; above 0 where the change is more common here.
    """

    change: Change
    share: float
    share_elsewhere: float
    specificity: float


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """What a reaction type stands for.

    Attributes:
        label: The type.
        size: Its number of reactions.
        name: Short and unlike that of any other type, such as ``C-N made, acyl halide lost``.
        frequent: Its most common changes, the most common first.
        specific: Changes more common in it than elsewhere, the most specific first.
    """

    label: int
    size: int
    name: str
    frequent: tuple[ChangeShare, ...]
    specific: tuple[ChangeShare, ...]


def name_types(
    changes: Sequence[ReactionChange], *, labels: Sequence[int], num_shown: int = 5
) -> list[TypeSummary]:
    """Summary of each reaction type from what its reactions change.

    Args:
        changes: Of each reaction.
        labels: Type of each reaction.
        num_shown: Most changes listed as frequent, and as specific.

    Returns:
        One summary a type, by label.

    Raises:
        ValueError: If ``changes`` and ``labels`` differ in length.
    """
    if len(changes) != len(labels):
        raise ValueError(f"{len(changes)} changes but {len(labels)} labels; give one label each")
    named = [change.named() for change in changes]
    in_all = _count(named)
    summaries, names = [], Counter[str]()
    for label in sorted(set(labels)):
        inside = [each for each, own in zip(named, labels, strict=True) if own == label]
        shares = _shares(_count(inside), in_all=in_all, size=len(inside), total=len(named))
        frequent = sorted(shares, key=lambda each: (-each.share, each.change))
        specific = sorted(
            (each for each in shares if each.specificity > 0),
            key=lambda each: (-each.specificity, each.change),
        )
        name = _name(shares)
        names[name] += 1
        if names[name] > 1:
            name = f"{name} ({names[name]})"
        summaries.append(
            TypeSummary(
                label, len(inside), name, tuple(frequent[:num_shown]), tuple(specific[:num_shown])
            )
        )
    return summaries


def _count(named: Iterable[frozenset[Change]]) -> Counter[Change]:
    return Counter(change for each in named for change in each)


def _shares(
    inside: Counter[Change], *, in_all: Counter[Change], size: int, total: int
) -> list[ChangeShare]:
    shares = []
    for change, number in inside.items():
        number_elsewhere, size_elsewhere = in_all[change] - number, total - size
        share, elsewhere = _smooth(number, size), _smooth(number_elsewhere, size_elsewhere)
        shares.append(
            ChangeShare(
                change,
                share=number / size,
                share_elsewhere=number_elsewhere / size_elsewhere if size_elsewhere else 0.0,
                specificity=share * log2(share / elsewhere),
            )
        )
    return shares


def _smooth(number: int, size: int) -> float:
    return (number + _SMOOTHING) / (size + 2 * _SMOOTHING)


def _name(shares: Iterable[ChangeShare]) -> str:
    """The change of structure and the change of groups that set the type apart most.

    Set apart by the difference of shares: a name should be true of many, not only of few others.
    A bond made says more than a bond changed, and that more than a bond broken.
    """
    fair = [each for each in shares if each.share >= _MIN_NAMED_SHARE]
    ranked = sorted(fair, key=lambda each: (each.share_elsewhere - each.share, each.change))
    structure = [_first(ranked, kinds=kinds) for kinds in _STRUCTURE_KINDS]
    parts = [*[part for part in structure if part][:1], _first(ranked, kinds=_GROUP_KINDS)]
    found = [part.text for part in parts if part is not None]
    if not found and ranked:
        found = [ranked[0].change.text]
    return ", ".join(found) or NO_CHANGE


def _first(shares: Iterable[ChangeShare], *, kinds: frozenset[ChangeKind]) -> Change | None:
    return next((each.change for each in shares if each.change.kind in kinds), None)
