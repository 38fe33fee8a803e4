"""Confidence: the probability that an answer is right, learned from validation rows.

A model's own probability of an answer is that of one text among all texts, which says little about
how often such answers are right. A logistic curve over the log-probability of the best answer,
fitted on validation rows, says it; Platt's targets keep it from certainty where rows are few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CALIBRATION_FILE = "calibration.json"
NUM_BINS = 10
_SMALLEST_LOG = -50.0


@dataclass(frozen=True)
class Calibration:
    """Confidence of an answer as ``1 / (1 + exp(-(slope log p + offset)))``.

    Args:
        slope: At least 0, so that a more probable answer is never less sure.
        offset: Log-odds at probability 1.
        num_rows: Validation rows behind it.
    """

    slope: float
    offset: float
    num_rows: int

    def confidence(self, log_probability: float) -> float:
        """Probability that an answer is right, in (0, 1).

        Args:
            log_probability: Of the answer, in nats.
        """
        log_odds = self.slope * max(log_probability, _SMALLEST_LOG) + self.offset
        return float(1 / (1 + np.exp(-log_odds)))


@dataclass(frozen=True)
class BestAnswers:
    """Best answers of some rows.

    Args:
        log_probabilities: Of the best answer of each row, in nats.
        is_right: Whether it is the right one, molecule by molecule.
    """

    log_probabilities: Sequence[float]
    is_right: Sequence[bool]


@dataclass(frozen=True)
class Confidence:
    """How well confidence fits what comes true.

    Args:
        calibration: Fitted on validation rows.
        error_before: Expected calibration error, on test rows, of the model's own probability.
        error: The same of the confidence.
        num_test_rows: Test rows behind both.
    """

    calibration: Calibration
    error_before: float
    error: float
    num_test_rows: int


def learn_confidence(
    validation: Mapping[str, BestAnswers], *, test: Mapping[str, BestAnswers]
) -> dict[str, Confidence]:
    """Calibrations from validation rows, tried on test rows.

    Args:
        validation: Best answers of validation rows, by task.
        test: Those of test rows.

    Returns:
        By task that has validation rows.
    """
    learned = {}
    for task, known in validation.items():
        tried = test.get(task, BestAnswers((), ()))
        curve = fit_calibration(known.log_probabilities, is_right=known.is_right)
        claimed = np.exp(np.asarray(tried.log_probabilities, dtype=np.float64)).tolist()
        sure = [curve.confidence(each) for each in tried.log_probabilities]
        learned[task] = Confidence(
            curve,
            error_before=calibration_error(claimed, is_right=tried.is_right),
            error=calibration_error(sure, is_right=tried.is_right),
            num_test_rows=len(tried.is_right),
        )
    return learned


def confidence_as_markdown(confidence: Mapping[str, Confidence]) -> str:
    """A Markdown table of calibration errors, a row a task; empty without tasks."""
    if not confidence:
        return ""
    lines = [
        "",
        "### Confidence",
        "",
        "Expected calibration error of the best answer, on test rows: of the model's own "
        "probability, and of the confidence learned on validation rows.",
        "",
        "| task | probability | confidence | validation rows | test rows |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for task, each in confidence.items():
        rows = f"{each.calibration.num_rows:,} | {each.num_test_rows:,}"
        lines.append(f"| {task} | {each.error_before:.3f} | {each.error:.3f} | {rows} |")
    return "\n".join(lines) + "\n"


def fit_calibration(log_probabilities: Sequence[float], *, is_right: Sequence[bool]) -> Calibration:
    """The curve that fits best answers of validation rows.

    Args:
        log_probabilities: Of the best answer of each row, in nats.
        is_right: Whether it was right.

    Returns:
        The curve; it is flat where answers that are more probable are not more often right.

    Source: Platt (1999), Probabilistic outputs for support vector machines, section 2.2.
    """
    from sklearn.linear_model import LogisticRegression

    right = np.asarray(is_right, dtype=bool)
    num_right, num_wrong = int(right.sum()), int((~right).sum())
    high, low = (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2)
    flat = Calibration(0.0, float(np.log((num_right + 1) / (num_wrong + 1))), len(right))
    if len(right) == 0:
        return flat
    features = np.maximum(np.asarray(log_probabilities, dtype=np.float64), _SMALLEST_LOG)[:, None]
    shares = np.where(right, high, low)
    # Each row counts as right by its target and as wrong by the rest.
    model = LogisticRegression(C=np.inf).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(right)),
        sample_weight=np.concatenate([shares, 1 - shares]),
    )
    slope = float(model.coef_[0, 0])
    return Calibration(slope, float(model.intercept_[0]), len(right)) if slope > 0 else flat


def calibration_error(
    confidences: Sequence[float], *, is_right: Sequence[bool], num_bins: int = NUM_BINS
) -> float:
    """Expected calibration error (ECE) over bins of equal width.

    ``sum over bins of share of rows * |share of right answers - mean confidence|``.

    Args:
        confidences: Claimed probabilities, in [0, 1].
        is_right: What came true.
        num_bins: Bins of [0, 1].

    Returns:
        In [0, 1]; 0 without rows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    claimed: NDArray[np.float64] = np.asarray(confidences, dtype=np.float64)
    right = np.asarray(is_right, dtype=np.float64)
    bins = np.minimum((claimed * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=right - claimed, minlength=num_bins)
    return float(np.abs(gaps).sum() / max(1, len(claimed)))
