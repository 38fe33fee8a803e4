"""Other spellings of an input, to be decoded beside the canonical one."""

import hashlib

import numpy as np

from raycrp.chem.spelling import randomized_pair

_MAX_DRAWS_PER_SPELLING = 4


def spell_input(text: str, *, num_spellings: int) -> list[str]:
    """The canonical input, and others written from random atoms in random order.

    The draws depend on the input alone, so that it is spelled alike wherever it is answered.

    Args:
        text: Canonical input.
        num_spellings: Different spellings wanted; small molecules have fewer.

    Returns:
        Different texts, the canonical one first.

    Source: test-time augmentation, Tetko et al., Nat. Commun. 2020, 11, 5575.
    """
    spellings = [text]
    if num_spellings == 1:
        return spellings
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    for _ in range(_MAX_DRAWS_PER_SPELLING * (num_spellings - 1)):
        drawn = randomized_pair(text, target="", rng=rng).source
        if drawn not in spellings:
            spellings.append(drawn)
        if len(spellings) == num_spellings:
            break
    return spellings
