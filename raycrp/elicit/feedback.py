"""Algorithm 1: cluster, train LLM-RT to name the clusters, embed with it, again."""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Encoding
from raycrp.elicit.clusters import (
    Clusters,
    KMeansSettings,
    align_labels,
    cluster_reactions,
    count_distinct,
)
from raycrp.elicit.encodings import follows_llm_rt
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.scores import ClusterSizes, NamingScores, measure_sizes, score_naming
from raycrp.elicit.vectors import Vectors

logger = logging.getLogger(__name__)


NO_TYPE = -1
"""Label of a row whose reaction was not clustered."""


class LlmRt(Protocol):
    """LLM-RT inside one trial: it learns to name reaction types and embeds what it has learnt."""

    @property
    def learns_vectors(self) -> bool:
        """Whether training changes the encoder, so that there is something to feed back."""
        ...

    def train(self, labels: IntArray, *, seed: int) -> None:
        """Learn on D'_train to name the labels from the inputs alone; D'_valid says when to stop.

        Args:
            labels: Reaction types of all rows, shape ``(num_rows,)``.
            seed: Seed of every random choice.
        """
        ...

    def name(self, indices: IntArray) -> FloatArray:
        """Probabilities of the reaction types, shape ``(len(indices), num_types)``."""
        ...

    def embed(self) -> Vectors:
        """Vectors of all rows by the encoder as it is now."""
        ...

    def save(self, folder: Path) -> None:
        """Write a labeler folder that needs nothing else."""
        ...


@dataclass(frozen=True)
class RoundResult:
    """One round of Algorithm 1.

    Args:
        number: 0 for the round on the shared vectors.
        clusters: Reaction types of all rows, under the names of the round before, and how central
            each row is; ``NO_TYPE`` and infinitely far where the reaction was not clustered.
        scores: How well LLM-RT names them on D'_valid.
        sizes: How evenly they spread.
        agreement: Adjusted mutual information with the round before; None in round 0.
        has_collapsed: Whether reaction types have died, which ends the rounds.
        is_best: Whether it is the best round so far; a collapsed one never is.
        seconds: Time of the round.
    """

    number: int
    clusters: Clusters
    scores: NamingScores
    sizes: ClusterSizes
    agreement: float | None
    has_collapsed: bool
    is_best: bool
    seconds: float

    @property
    def encoder_passes(self) -> int:
        """Passes over all rows for this round's vectors; those of round 0 are shared."""
        return 0 if self.number == 0 else 1

    def metrics(self) -> dict[str, Any]:
        """All figures of the round, JSON-ready."""
        return {
            "round": self.number,
            **asdict(self.scores),
            **asdict(self.sizes),
            "agreement": self.agreement,
            "has_collapsed": self.has_collapsed,
            "is_best": self.is_best,
            "encoder_passes": self.encoder_passes,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class FeedbackSettings:
    """How Algorithm 1 runs for one pair.

    Args:
        encoding: Which vectors describe a reaction.
        num_clusters: The N of the paper.
        max_rounds: Rounds at most; 1 is no feedback.
        patience: Rounds without a better accuracy before it stops.
        kmeans: How k-means runs.
        collapse_fraction: It stops when the effective number of reaction types falls below this
            share of what it was in round 0.
        seed: Seed of every random choice but those of k-means.
        kmeans_seed: Seed of k-means.
    """

    encoding: Encoding
    num_clusters: int
    max_rounds: int
    patience: int
    kmeans: KMeansSettings
    collapse_fraction: float
    seed: int
    kmeans_seed: int


def run_rounds(
    rows: TaskRows, *, llm_rt: LlmRt, settings: FeedbackSettings
) -> Iterator[RoundResult]:
    """Carry out the rounds of Algorithm 1 for one encoding and N, yielding each as it ends.

    When a round is yielded, ``llm_rt`` is in the state of that round, so that the caller can keep
    the best. The rounds end with ``max_rounds``, when patience runs out, or when types die.

    Args:
        rows: D_train of one task with the shared vectors of round 0.
        llm_rt: A fresh LLM-RT.
        settings: The pair and the limits.

    Yields:
        The rounds in order, with the best marked as it comes.

    Source: Algorithm 1, Eq 4 to 8.
    """
    rounds: list[RoundResult] = []
    has_feedback = llm_rt.learns_vectors and follows_llm_rt(settings.encoding)
    num_rounds = settings.max_rounds if has_feedback else 1
    for number in range(num_rounds):
        started = time.monotonic()
        clusters = _find_types(rows, llm_rt=llm_rt, settings=settings, rounds=rounds)
        if clusters is None:
            return
        llm_rt.train(clusters.labels, seed=derive_seed(settings.seed, "train", number))
        scores = score_rows(rows.valid, rows=rows, labels=clusters.labels, llm_rt=llm_rt)
        result = _describe_round(clusters, scores=scores, settings=settings, rounds=rounds)
        result = replace(result, seconds=time.monotonic() - started)
        rounds.append(result)
        yield result
        if result.has_collapsed or _rounds_since_best(rounds) >= settings.patience:
            return


def score_rows(
    indices: IntArray, *, rows: TaskRows, labels: IntArray, llm_rt: LlmRt
) -> NamingScores:
    """Score a trained LLM-RT on rows it was not trained on.

    Args:
        indices: The rows.
        rows: D_train of the task.
        labels: Reaction types of all rows.
        llm_rt: LLM-RT.
    """
    return score_naming(
        labels[indices],
        probabilities=llm_rt.name(indices),
        majority_type=majority_type(rows, labels=labels),
    )


def majority_type(rows: TaskRows, *, labels: IntArray) -> int:
    """The most frequent reaction type of D'_train.

    Args:
        rows: D_train of the task.
        labels: Reaction types of all rows.
    """
    return int(np.bincount(labels[rows.train]).argmax())


def derive_seed(*parts: int | str) -> int:
    """A seed in ``[0, 2**31)`` that depends on the parts alone, on every machine.

    Args:
        parts: What tells this use from all others, such as task, encoding, N and round.
    """
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) >> 1


def _find_types(
    rows: TaskRows,
    *,
    llm_rt: LlmRt,
    settings: FeedbackSettings,
    rounds: Sequence[RoundResult],
) -> Clusters | None:
    """Clusters under the names of the round before; None if the vectors have fallen together."""
    number, num_clusters = len(rounds), settings.num_clusters
    vectors = llm_rt.embed() if rounds else rows.clustered_vectors
    if rounds and num_clusters > count_distinct(
        vectors, encoding=settings.encoding, limit=num_clusters
    ):
        logger.warning(
            "%s, N=%d: feedback stops after round %d, the vectors have fallen together",
            settings.encoding,
            num_clusters,
            number - 1,
        )
        return None
    clusters = cluster_reactions(
        vectors,
        encoding=settings.encoding,
        num_clusters=num_clusters,
        settings=settings.kmeans,
        seed=derive_seed(settings.kmeans_seed, number),
    )
    if rows.basis is not None:
        return _take_clusters(clusters, rows.basis.places)
    if not rounds:
        return clusters
    reference = rounds[-1].clusters.labels
    labels = align_labels(clusters.labels, reference=reference, num_clusters=num_clusters)
    return replace(clusters, labels=labels)


def _take_clusters(clusters: Clusters, places: IntArray) -> Clusters:
    is_missing = places < 0
    return Clusters(
        labels=np.where(is_missing, NO_TYPE, clusters.labels[places]),
        distances=np.where(is_missing, np.float32(np.inf), clusters.distances[places]),
    )


def _describe_round(
    clusters: Clusters,
    *,
    scores: NamingScores,
    settings: FeedbackSettings,
    rounds: Sequence[RoundResult],
) -> RoundResult:
    labels = clusters.labels
    sizes = measure_sizes(labels[labels != NO_TYPE], num_types=settings.num_clusters)
    has_collapsed = bool(rounds) and _has_collapsed(sizes, settings=settings, rounds=rounds)
    best_before = max((earlier.scores.accuracy for earlier in rounds), default=-1.0)
    agreement = adjusted_mutual_info_score(rounds[-1].clusters.labels, labels) if rounds else None
    return RoundResult(
        number=len(rounds),
        clusters=clusters,
        scores=scores,
        sizes=sizes,
        agreement=None if agreement is None else float(agreement),
        has_collapsed=has_collapsed,
        is_best=scores.accuracy > best_before and not has_collapsed,
        seconds=0.0,
    )


def _has_collapsed(
    sizes: ClusterSizes, *, settings: FeedbackSettings, rounds: Sequence[RoundResult]
) -> bool:
    first = rounds[0].sizes.effective_types
    if sizes.effective_types >= settings.collapse_fraction * first:
        return False
    logger.warning(
        "%s, N=%d: feedback stops in round %d, reaction types die: %.1f effective types, "
        "%.1f in round 0",
        settings.encoding,
        settings.num_clusters,
        len(rounds),
        sizes.effective_types,
        first,
    )
    return True


def _rounds_since_best(rounds: Sequence[RoundResult]) -> int:
    return rounds[-1].number - max(result.number for result in rounds if result.is_best)
