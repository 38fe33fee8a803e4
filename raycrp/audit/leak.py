"""Whether labels of held-out rows can be read off the answer better than off the input.

A probe learns to tell a label from what can be seen of a row: its input, its output, or both. A
label that was named from the input alone cannot be read off the answer better than off the input;
one that was computed from the answer can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raycrp.arrays import FloatArray, IntArray
from raycrp.evaluate.bootstrap import (
    Estimate,
    Interval,
    bootstrap_differences,
    bootstrap_intervals,
    ratio_of_sums,
)

NUM_FOLDS = 5
_NUM_COMPONENTS = 128
_PRIOR_WEIGHT = 0.02
_MAX_STEPS = 500


class View(StrEnum):
    """What a probe sees of a row."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"


@dataclass(frozen=True)
class LabelledRows:
    """Rows with labels, and what probes see of them.

    Args:
        labels: Classes, shape ``(num_rows,)``, any integers.
        reactions: Reaction key of each row; rows of one reaction stay together.
        inputs: Features of the inputs, shape ``(num_rows, dim)``.
        outputs: Features of the outputs, same shape.
    """

    labels: IntArray
    reactions: Sequence[str]
    inputs: FloatArray
    outputs: FloatArray

    def view(self, view: View) -> FloatArray:
        """Features that a probe sees."""
        if view is View.BOTH:
            return np.concatenate([self.inputs, self.outputs], axis=1)
        return self.inputs if view is View.INPUT else self.outputs


@dataclass(frozen=True)
class LeakTest:
    """How well labels are read off each view.

    Args:
        num_rows: Rows whose labels were read.
        num_reactions: Different reactions among them.
        num_fit_rows: Rows with labels that the probes learnt from.
        num_classes: Classes among the rows read.
        is_cross_validated: Whether the probes learnt from other held-out rows, for want of
            labelled training rows.
        majority: Share of the rows whose label is the most frequent one that probes learnt from.
        accuracies: Share of right readings by view.
        bits: What a reading tells about the label by view, in bits a row: how much less surprising
            the label is than by its frequency. A lower bound of the mutual information; below 0
            where the probe misleads.
        output_gain: Accuracy off the output minus off the input, paired.
        both_gain: Accuracy off both minus off the input, paired.
    """

    num_rows: int
    num_reactions: int
    num_fit_rows: int
    num_classes: int
    is_cross_validated: bool
    majority: float
    accuracies: Mapping[View, Interval]
    bits: Mapping[View, Interval]
    output_gain: Interval
    both_gain: Interval

    @property
    def leaks(self) -> bool:
        """Whether the answer tells more about the labels than the input does.

        Where probes learnt from other held-out rows, seeing both may help an honest label too,
        since a small probe uses the output as a second look at the input; there the output alone
        decides.
        """
        if self.output_gain.low > 0:
            return True
        return self.both_gain.low > 0 and not self.is_cross_validated


def find_leak(
    held_out: LabelledRows,
    *,
    fit: LabelledRows | None = None,
    num_resamples: int,
    seed: int,
) -> LeakTest:
    """Read the labels of held-out rows off input, output and both.

    Args:
        held_out: Rows whose labels are in doubt; of two reactions at least.
        fit: Training rows, whose labels may come from their outputs, for the probes to learn
            from; without them probes are cross-validated over the held-out rows.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of probes and draws.

    Raises:
        ValueError: If there are too few rows, or the rows to learn from have one class alone.
    """
    readings = {view: _read_labels(held_out, fit, view=view, seed=seed) for view in View}
    first = readings[View.INPUT]
    settings: dict[str, Any] = {
        "clusters": held_out.reactions,
        "num_resamples": num_resamples,
        "seed": seed,
    }
    right = {view: _mean(reading.is_right) for view, reading in readings.items()}
    bits = {view: _mean(reading.bits, is_share=False) for view, reading in readings.items()}
    accuracies = bootstrap_intervals(list(right.values()), **settings)
    told = bootstrap_intervals(list(bits.values()), **settings)
    gains = bootstrap_differences(
        [right[View.INPUT]] * 2, [right[View.OUTPUT], right[View.BOTH]], **settings
    )
    return LeakTest(
        num_rows=len(held_out.labels),
        num_reactions=len(set(held_out.reactions)),
        num_fit_rows=len(held_out.labels) if fit is None else len(fit.labels),
        num_classes=len(np.unique(held_out.labels)),
        is_cross_validated=fit is None,
        majority=float(first.is_majority.mean()),
        accuracies=dict(zip(View, accuracies, strict=True)),
        bits=dict(zip(View, told, strict=True)),
        output_gain=gains[0],
        both_gain=gains[1],
    )


@dataclass(frozen=True)
class _Reading:
    """Of each row: was its label read right, is it the most frequent one, bits told about it."""

    is_right: npt.NDArray[np.float64]
    is_majority: npt.NDArray[np.float64]
    bits: npt.NDArray[np.float64]


def _read_labels(
    held_out: LabelledRows, fit: LabelledRows | None, *, view: View, seed: int
) -> _Reading:
    features = held_out.view(view)
    if fit is not None:
        return _read_fold(
            fit.view(view), fit.labels, features=features, labels=held_out.labels, seed=seed
        )
    parts = np.zeros((3, len(held_out.labels)))
    for learnt, read in _folds(held_out):
        reading = _read_fold(
            features[learnt],
            held_out.labels[learnt],
            features=features[read],
            labels=held_out.labels[read],
            seed=seed,
        )
        parts[:, read] = [reading.is_right, reading.is_majority, reading.bits]
    return _Reading(*parts)


def _folds(rows: LabelledRows) -> list[tuple[IntArray, IntArray]]:
    num_reactions = len(set(rows.reactions))
    if num_reactions < NUM_FOLDS:
        raise ValueError(f"{num_reactions} reactions are too few for {NUM_FOLDS} folds")
    # Folds of the library go by the order of the groups, so the groups are numbered at random.
    names, groups = np.unique(np.asarray(rows.reactions, dtype=object), return_inverse=True)
    groups = np.random.default_rng(0).permutation(len(names))[groups]
    return list(GroupKFold(NUM_FOLDS).split(rows.inputs, groups=groups))


def _read_fold(
    learnt_features: FloatArray,
    learnt_labels: IntArray,
    *,
    features: FloatArray,
    labels: IntArray,
    seed: int,
) -> _Reading:
    classes, counts = np.unique(learnt_labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError("all rows to learn from have one label, so there is nothing to read")
    num_components = min(_NUM_COMPONENTS, *learnt_features.shape)
    probe = make_pipeline(
        StandardScaler(),
        PCA(num_components, random_state=seed, svd_solver="randomized"),
        LogisticRegression(max_iter=_MAX_STEPS),
    )
    probe.fit(learnt_features, learnt_labels)
    probabilities = probe.predict_proba(features)
    read = classes[probabilities.argmax(axis=1)]
    return _Reading(
        is_right=(read == labels).astype(np.float64),
        is_majority=(labels == classes[counts.argmax()]).astype(np.float64),
        bits=_bits(probabilities, classes=classes, counts=counts, labels=labels),
    )


def _bits(
    probabilities: npt.NDArray[np.float64],
    *,
    classes: IntArray,
    counts: IntArray,
    labels: IntArray,
) -> npt.NDArray[np.float64]:
    """Bits told about each label; 0 for a class that was never learnt."""
    prior = counts / counts.sum()
    mixed = (1 - _PRIOR_WEIGHT) * probabilities + _PRIOR_WEIGHT * prior
    places = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    told = np.log2(mixed[np.arange(len(labels)), places] / prior[places])
    return np.where(classes[places] == labels, told, 0.0)


def _mean(values: npt.NDArray[np.float64], *, is_share: bool = True) -> Estimate:
    counted = np.stack([values, np.ones(len(values))], axis=1)
    return Estimate(counted, ratio_of_sums, is_share=is_share)
