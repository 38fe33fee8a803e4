"""Train, validation and test by reaction key; leaks, duplicates, and D_train's own 98:1:1.

Which reactions a split holds follows from the keys and the seed, never from the order of rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from raycrp.choices import LeakPolicy, Task
from raycrp.data.identity import Identities
from raycrp.errors import DataError
from raycrp.schemas import Split

SPLITS = tuple(Split)
TASKS = tuple(Task)
NO_SPLIT = -1


class Fate(IntEnum):
    """What becomes of a clean row."""

    KEPT = 0
    LEAK = 1
    DUPLICATE = 2
    UNKNOWN_SPLIT = 3
    NOT_SAMPLED = 4


class RtCode(IntEnum):
    """The split of a row inside D_train; NONE for a row outside."""

    NONE = -1
    TRAIN = 0
    VALID = 1
    TEST = 2


@dataclass(frozen=True)
class RowIndex:
    """What is kept in memory of each clean row.

    Args:
        tasks: Shape ``(num_rows,)``, index into ``TASKS``.
        splits: Shape ``(num_rows,)``, index into ``SPLITS`` as the source marks it, or NO_SPLIT.
        contents: Shape ``(num_rows,)``, hash of task, input and output.
        identities: The reaction of each row.
    """

    tasks: NDArray[np.int8]
    splits: NDArray[np.int8]
    contents: NDArray[np.int64]
    identities: Identities


@dataclass(frozen=True)
class SplitSettings:
    """Shares and policies of the splits; see ``DataConfig``."""

    seed: int
    validation_fraction: float
    test_fraction: float
    rt_valid_fraction: float
    rt_test_fraction: float
    max_reactions: int | None
    leak_policy: LeakPolicy


@dataclass(frozen=True)
class SharedReactions:
    """Reactions that two splits share.

    Args:
        first: A split and task.
        second: A later split and a task.
        num_found: Reactions shared in the source.
        num_left: Reactions shared by the rows kept.
    """

    first: tuple[Split, Task]
    second: tuple[Split, Task]
    num_found: int
    num_left: int


@dataclass(frozen=True)
class SplitResult:
    """Where each clean row goes.

    Args:
        splits: Shape ``(num_rows,)``, index into ``SPLITS``.
        fates: Shape ``(num_rows,)``, values of ``Fate``.
        rt_splits: Shape ``(num_rows,)``, values of ``RtCode``.
        leak_table: One entry for each pair of splits and tasks that shares reactions.
        derived: Splits that the source does not mark, taken from its training rows.
    """

    splits: NDArray[np.int8]
    fates: NDArray[np.int8]
    rt_splits: NDArray[np.int8]
    leak_table: tuple[SharedReactions, ...]
    derived: tuple[Split, ...]


def split_rows(rows: RowIndex, *, settings: SplitSettings) -> SplitResult:
    """Decide split and fate of every clean row.

    Raises:
        DataError: If too few reactions are left for three splits.
    """
    splits = rows.splits.copy()
    fates = np.zeros(len(splits), dtype=np.int8)
    derived = _missing_splits(splits)
    if len(derived) == len(SPLITS):
        splits[:] = SPLITS.index(Split.TRAIN)
    fates[splits == NO_SPLIT] = Fate.UNKNOWN_SPLIT
    found = _sharing(rows, splits, fates)
    _reject_leaks(rows.identities, splits, fates, settings.leak_policy)
    _derive_splits(rows.identities, splits, fates, derived, settings)
    _reject_leaks(rows.identities, splits, fates, settings.leak_policy)
    fates[_find_duplicates(rows.contents, splits, fates)] = Fate.DUPLICATE
    if settings.max_reactions is not None:
        _sample(rows.identities, splits, fates, settings.max_reactions, settings.seed)
    left = _sharing(rows, splits, fates)
    return SplitResult(
        splits=splits,
        fates=fates,
        rt_splits=_split_train(rows.identities, splits, fates, settings),
        leak_table=_leak_table(found, left),
        derived=tuple(split for split in derived if split is not Split.TRAIN),
    )


def key_position(key: str, *, seed: int, purpose: str) -> int:
    """Place of a reaction in a random order that only its key, the seed and the purpose decide."""
    text = f"{purpose}:{seed}:{key}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _missing_splits(splits: NDArray[np.int8]) -> tuple[Split, ...]:
    present = set(np.unique(splits).tolist())
    return tuple(split for code, split in enumerate(SPLITS) if code not in present)


def _find_duplicates(
    contents: NDArray[np.int64], splits: NDArray[np.int8], fates: NDArray[np.int8]
) -> NDArray[np.int64]:
    rows = np.flatnonzero(fates == Fate.KEPT)
    pairs = np.stack([contents[rows], splits[rows].astype(np.int64)], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return np.setdiff1d(rows, rows[first], assume_unique=True)


def _reject_leaks(
    identities: Identities,
    splits: NDArray[np.int8],
    fates: NDArray[np.int8],
    policy: LeakPolicy,
) -> None:
    if policy is LeakPolicy.REPORT:
        return
    is_train = splits == SPLITS.index(Split.TRAIN)
    is_kept = fates == Fate.KEPT
    held_out = is_kept & ~is_train
    unsure, others = identities.alternatives.T
    held_codes = np.concatenate([identities.codes[held_out], others[held_out[unsure]]])
    is_leak = np.isin(identities.codes, held_codes)
    is_leak[unsure[np.isin(others, held_codes)]] = True
    mixtures = identities.mixtures[held_out]
    is_leak |= np.isin(identities.mixtures, mixtures[mixtures != 0])
    fates[is_kept & is_train & is_leak] = Fate.LEAK


def _derive_splits(
    identities: Identities,
    splits: NDArray[np.int8],
    fates: NDArray[np.int8],
    missing: Sequence[Split],
    settings: SplitSettings,
) -> None:
    train = SPLITS.index(Split.TRAIN)
    is_train = (splits == train) & (fates == Fate.KEPT)
    order = _random_order(identities, identities.codes[is_train], settings.seed, "split")
    start = 0
    for split, fraction in (
        (Split.TEST, settings.test_fraction),
        (Split.VALIDATION, settings.validation_fraction),
    ):
        if split in missing:
            end = start + max(1, round(fraction * len(order)))
            chosen = np.isin(identities.codes, order[start:end])
            splits[is_train & chosen] = SPLITS.index(split)
            start = end
    if start >= len(order):
        needed = start + 1
        raise DataError(
            f"{len(order)} training reactions are left, at least {needed} are needed to set "
            f"{' and '.join(missing) or 'nothing'} apart"
        )


def _sample(
    identities: Identities,
    splits: NDArray[np.int8],
    fates: NDArray[np.int8],
    max_reactions: int,
    seed: int,
) -> None:
    is_kept = fates == Fate.KEPT
    taken: set[int] = set()
    groups = []
    for code in reversed(range(len(SPLITS))):
        present = set(np.unique(identities.codes[is_kept & (splits == code)]).tolist()) - taken
        taken |= present
        groups.append(np.array(sorted(present), dtype=np.int64))
    if len(taken) <= max_reactions:
        return
    quotas = [max(1, round(max_reactions * len(group) / len(taken))) for group in groups]
    quotas[-1] = max(1, max_reactions - sum(quotas[:-1]))
    chosen = [
        _random_order(identities, group, seed, "sample")[:quota]
        for group, quota in zip(groups, quotas, strict=True)
    ]
    is_chosen = np.isin(identities.codes, np.concatenate(chosen))
    fates[is_kept & ~is_chosen] = Fate.NOT_SAMPLED


def _split_train(
    identities: Identities,
    splits: NDArray[np.int8],
    fates: NDArray[np.int8],
    settings: SplitSettings,
) -> NDArray[np.int8]:
    is_train = (splits == SPLITS.index(Split.TRAIN)) & (fates == Fate.KEPT)
    order = _random_order(identities, identities.codes[is_train], settings.seed, "rt_split")
    num_test = max(1, round(settings.rt_test_fraction * len(order)))
    num_valid = max(1, round(settings.rt_valid_fraction * len(order)))
    if num_test + num_valid >= len(order):
        raise DataError(
            f"{len(order)} training reactions are left; elicitation needs at least 3, "
            "one each to train, to choose and to test on"
        )
    rt_splits = np.full(len(splits), RtCode.NONE, dtype=np.int8)
    rt_splits[is_train] = RtCode.TRAIN
    rt_splits[is_train & np.isin(identities.codes, order[:num_test])] = RtCode.TEST
    valid = order[num_test : num_test + num_valid]
    rt_splits[is_train & np.isin(identities.codes, valid)] = RtCode.VALID
    return rt_splits


def _random_order(
    identities: Identities, codes: NDArray[np.int64], seed: int, purpose: str
) -> NDArray[np.int64]:
    distinct = np.unique(codes)
    positions = [key_position(identities.keys[c], seed=seed, purpose=purpose) for c in distinct]
    return distinct[np.argsort(np.array(positions, dtype=np.uint64), kind="stable")]


_Group = tuple[Split, Task]


def _sharing(
    rows: RowIndex, splits: NDArray[np.int8], fates: NDArray[np.int8]
) -> dict[tuple[_Group, _Group], int]:
    is_kept = fates == Fate.KEPT
    codes = {
        (split, task): np.unique(rows.identities.codes[is_kept & (splits == s) & (rows.tasks == t)])
        for s, split in enumerate(SPLITS)
        for t, task in enumerate(TASKS)
    }
    return {
        (first, second): len(np.intersect1d(codes[first], codes[second], assume_unique=True))
        for first, second in combinations(codes, 2)
        if first[0] is not second[0]
    }


def _leak_table(
    found: dict[tuple[_Group, _Group], int], left: dict[tuple[_Group, _Group], int]
) -> tuple[SharedReactions, ...]:
    return tuple(
        SharedReactions(first, second, num_found, left[first, second])
        for (first, second), num_found in found.items()
        if num_found or left[first, second]
    )
