"""Reaction types in words: what is frequent in each, what is specific to it, and a short name."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
        lift: Smoothed share over the smoothed share elsewhere; above 1 where the change is more
            common here.
        specificity: Smoothed share times the binary logarithm of ``lift``, in bits.
    """

    change: Change
    share: float
    share_elsewhere: float
    lift: float
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
    changes: Sequence[ReactionChange],
    *,
    labels: Sequence[int],
    num_shown: int = 5,
    sizes: Mapping[int, int] | None = None,
) -> list[TypeSummary]:
    """Summary of each reaction type from what its reactions change.

    Args:
        changes: Of each reaction.
        labels: Type of each reaction.
        num_shown: Most changes listed as frequent, and as specific.
        sizes: Reactions of each type in all, where ``changes`` is a sample of each type; as many as
            are given if None.

    Returns:
        One summary a type, by label.

    Raises:
        ValueError: If ``changes`` and ``labels`` differ in length.
    """
    if len(changes) != len(labels):
        raise ValueError(f"{len(changes)} changes but {len(labels)} labels; give one label each")
    counts = _count_by_type(changes, labels=labels, sizes=sizes)
    in_all = _add_up(counts.values())
    summaries, names = [], Counter[str]()
    for label, own in counts.items():
        shares = _shares(own, in_all=in_all)
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
                label, own.size, name, tuple(frequent[:num_shown]), tuple(specific[:num_shown])
            )
        )
    return summaries


@dataclass(frozen=True)
class _TypeCounts:
    """Reactions of a type, and how many of them show each change; estimates where sampled."""

    size: int
    numbers: Mapping[Change, float]


def _count_by_type(
    changes: Sequence[ReactionChange], *, labels: Sequence[int], sizes: Mapping[int, int] | None
) -> dict[int, _TypeCounts]:
    num_given = Counter(labels)
    numbers: dict[int, Counter[Change]] = {label: Counter() for label in sorted(num_given)}
    for reaction, label in zip(changes, labels, strict=True):
        numbers[label].update(reaction.named())
    counts = {}
    for label, own in numbers.items():
        size = num_given[label] if sizes is None else sizes[label]
        estimates = {change: number * size / num_given[label] for change, number in own.items()}
        counts[label] = _TypeCounts(size, estimates)
    return counts


def _add_up(counts: Iterable[_TypeCounts]) -> _TypeCounts:
    size, numbers = 0, dict[Change, float]()
    for each in counts:
        size += each.size
        for change, number in each.numbers.items():
            numbers[change] = numbers.get(change, 0.0) + number
    return _TypeCounts(size, numbers)


def _shares(own: _TypeCounts, *, in_all: _TypeCounts) -> list[ChangeShare]:
    size_elsewhere = in_all.size - own.size
    shares = []
    for change, number in own.numbers.items():
        number_elsewhere = max(0.0, in_all.numbers[change] - number)
        share = _smooth(number, own.size)
        lift = share / _smooth(number_elsewhere, size_elsewhere)
        shares.append(
            ChangeShare(
                change,
                share=number / own.size,
                share_elsewhere=number_elsewhere / size_elsewhere if size_elsewhere else 0.0,
                lift=lift,
                specificity=share * log2(lift),
            )
        )
    return shares


def _smooth(number: float, size: int) -> float:
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
