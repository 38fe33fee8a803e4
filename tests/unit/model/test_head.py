import numpy as np
import pytest
import sklearn.metrics
from sklearn.linear_model import LogisticRegression

from raycrp.errors import ModelError
from raycrp.model.head import Head, fit_head, fit_temperature, keep_best, load_head, log_loss

NO_ROWS = {"valid_vectors": np.zeros((0, 6), np.float32), "valid_labels": np.zeros(0, np.int64)}


def blobs(num_rows, *, seed, spread=0.3):
    """Three clouds on the axes of a six-dimensional space, one column of which never varies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=num_rows)
    vectors = np.eye(6)[labels] + rng.normal(scale=spread, size=(num_rows, 6))
    vectors[:, 5] = 7.0
    return vectors.astype(np.float32), labels


def fit(*, seed=0, spread=0.3, **settings):
    vectors, labels = blobs(300, seed=1, spread=spread)
    valid_vectors, valid_labels = blobs(100, seed=2, spread=spread)
    return fit_head(
        vectors,
        labels,
        num_types=3,
        valid_vectors=valid_vectors,
        valid_labels=valid_labels,
        seed=seed,
        batch_size=32,
        **settings,
    )


@pytest.mark.parametrize("hidden_size", [0, 32])
def test_a_head_learns_what_logistic_regression_learns(hidden_size):
    vectors, labels = blobs(300, seed=1, spread=0.5)
    test_vectors, test_labels = blobs(500, seed=3, spread=0.5)
    head = fit(spread=0.5, hidden_size=hidden_size)
    expected = LogisticRegression().fit(vectors, labels).score(test_vectors, test_labels)
    found = (head.predict(test_vectors).argmax(axis=1) == test_labels).mean()
    assert found > expected - 0.03 > 0.7


def test_probabilities_are_a_distribution_over_all_types():
    vectors, labels = blobs(60, seed=1)
    head = fit_head(vectors, labels, num_types=5, **NO_ROWS, seed=0, max_epochs=3)
    probabilities = head.predict(vectors)
    assert head.num_types == 5
    assert probabilities.shape == (60, 5)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.isfinite(probabilities).all()


def test_prediction_by_hand():
    # Standardised: (1, 3). Hidden: relu(1 + 3, 1 - 3) = (4, 0). Logits: (4, 0) / 2 = (2, 0).
    head = Head(
        mean=np.array([1, 0], np.float32),
        scale=np.array([2, 1], np.float32),
        layers=(
            (np.array([[1, 1], [1, -1]], np.float32), np.zeros(2, np.float32)),
            (np.eye(2, dtype=np.float32), np.zeros(2, np.float32)),
        ),
        temperature=2.0,
    )
    expected = np.exp([2, 0]) / np.exp([2, 0]).sum()
    np.testing.assert_allclose(head.predict(np.array([[3, 3]], np.float32))[0], expected, atol=1e-6)


def test_the_same_seed_gives_the_same_head():
    vectors, _ = blobs(50, seed=4)
    first, again, other = (fit(seed=seed, max_epochs=2).predict(vectors) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_stops_by_validation_and_without_it_goes_on():
    vectors, labels = blobs(40, seed=1, spread=2.0)
    valid_vectors, valid_labels = blobs(200, seed=2, spread=2.0)
    settings = {"num_types": 3, "seed": 0, "max_epochs": 150, "batch_size": 8}
    stopped = fit_head(
        vectors, labels, valid_vectors=valid_vectors, valid_labels=valid_labels, **settings
    )
    driven = fit_head(vectors, labels, **NO_ROWS, **settings)
    train_loss = log_loss(stopped.predict(vectors), labels=labels)
    assert log_loss(driven.predict(vectors), labels=labels) < 0.8 * train_loss
    stopped_loss = log_loss(stopped.predict(valid_vectors), labels=valid_labels)
    assert stopped_loss < log_loss(driven.predict(valid_vectors), labels=valid_labels)


def test_a_saved_head_is_the_same(tmp_path):
    vectors, _ = blobs(50, seed=4)
    head = fit(max_epochs=2)
    head.save(tmp_path / "head.safetensors")
    loaded = load_head(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded.predict(vectors), head.predict(vectors))
    assert loaded.temperature == head.temperature


def test_a_missing_or_damaged_head_is_one_clear_line(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(ModelError, match="is missing; run elicit again"):
        load_head(path)
    path.write_bytes(b"no tensors here")
    with pytest.raises(ModelError, match="is damaged") as caught:
        load_head(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("losses", "patience", "best", "num_asked"),
    [
        ([3, 1, 2, 2, 0], 2, 1, 4),
        ([3, 1, 2, 2, 0], 3, 4, 5),
        ([1, 1, 1], 1, 0, 2),
        ([2, 1], 5, 1, 2),
    ],
)
def test_the_best_state_within_patience_is_kept(losses, patience, best, num_asked):
    asked = []

    def states():
        for number in range(len(losses)):
            asked.append(number)
            yield number

    assert keep_best(states(), loss=lambda number: losses[number], patience=patience) == best
    assert len(asked) == num_asked


def test_no_state_at_all_is_an_error():
    with pytest.raises(ValueError, match="ran for no epoch"):
        keep_best([], loss=float, patience=1)


def test_log_loss_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=20)
    labels = rng.integers(0, 4, size=20)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(4))
    assert log_loss(probabilities, labels=labels) == pytest.approx(expected)


def test_the_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20_000, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(logits, labels=labels) == pytest.approx(1, abs=0.05)
    assert fit_temperature(logits * 2.5, labels=labels) == pytest.approx(2.5, abs=0.12)
    assert fit_temperature(logits * 100, labels=labels) == pytest.approx(4, abs=0.01)
    assert fit_temperature(logits[:0], labels=labels[:0]) == 1


def test_vectors_and_labels_must_be_pairs():
    with pytest.raises(ValueError, match="found 2 vectors and 1 labels"):
        fit_head(
            np.zeros((2, 6), np.float32), np.zeros(1, np.int64), num_types=2, **NO_ROWS, seed=0
        )
    with pytest.raises(ValueError, match="found 0 vectors"):
        fit_head(
            np.zeros((0, 6), np.float32), np.zeros(0, np.int64), num_types=2, **NO_ROWS, seed=0
        )
