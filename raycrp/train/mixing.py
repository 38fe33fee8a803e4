"""How often each task's rows come up: in proportion to their number, or nearer to equal shares.

Each task has an endless stream of its rows, one pass over all of them after the other, each pass in
an order of its own. An epoch takes the next stretch of every stream, so that a small task's rows
may come up several times in an epoch while a large task's take several epochs to be gone through;
none is ever left out for good. What an epoch holds is a function of seed and epoch alone.
"""

import numpy as np

from raycrp.arrays import IntArray


def epoch_shares(num_rows: IntArray, *, temperature: float) -> IntArray:
    """Rows that each task has in an epoch, which has as many rows as there are.

    Args:
        num_rows: Rows of each task; at least one.
        temperature: At least 1, which takes each row once; the higher, the nearer to equal shares.

    Returns:
        Shape of ``num_rows``, same sum; rounded by largest remainder.

    Source:
        Temperature-scaled mixing of T5 (Raffel et al. 2020, section 3.5.2) without an artificial
        limit: shares in proportion to ``num_rows ** (1 / temperature)``.
    """
    weights = (num_rows / num_rows.max()) ** (1 / temperature)
    wanted = num_rows.sum() * weights / weights.sum()
    shares: IntArray = np.floor(wanted).astype(np.int64)
    missing = int(num_rows.sum() - shares.sum())
    shares[np.argsort(shares - wanted, kind="stable")[:missing]] += 1
    return shares


def mix_epoch(
    tasks: IntArray, *, temperature: float, seed: int, epoch: int
) -> tuple[IntArray, IntArray]:
    """The rows of an epoch, by place; with temperature 1 each of them once.

    Args:
        tasks: Task of each row.
        temperature: Of `epoch_shares`.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.

    Returns:
        Rising places in ``tasks``, as many as it has rows, and to which pass over the rows of its
        task each belongs, from 0.
    """
    kinds, num_rows = np.unique(tasks, return_counts=True)
    shares = epoch_shares(num_rows, temperature=temperature)
    places, passes = [], []
    for task, share in zip(kinds.tolist(), shares.tolist(), strict=True):
        stretch = (epoch * share, (epoch + 1) * share)
        taken, numbers = _take(np.flatnonzero(tasks == task), stretch, seed=(seed, task))
        places.append(taken)
        passes.append(numbers)
    merged, numbered = np.concatenate(places), np.concatenate(passes)
    order = np.lexsort((numbered, merged))
    return merged[order], numbered[order]


def _take(
    rows: IntArray, stretch: tuple[int, int], *, seed: tuple[int, int]
) -> tuple[IntArray, IntArray]:
    """Rows of a stretch of a task's stream, in any order, and the pass of each."""
    first, last = stretch[0] // len(rows), (stretch[1] - 1) // len(rows)
    whole = range(first + bool(stretch[0] % len(rows)), stretch[1] // len(rows))
    places, passes = [np.tile(rows, len(whole))], [np.repeat(np.array(whole, np.int64), len(rows))]
    for number in sorted({first, last}):
        if number in whole:
            continue
        begin = number * len(rows)
        order = np.random.default_rng((*seed, number)).permutation(rows)
        part = order[max(stretch[0] - begin, 0) : stretch[1] - begin]
        places.append(part)
        passes.append(np.full(len(part), number))
    return np.concatenate(places), np.concatenate(passes)
