"""Do metrics and their intervals agree with an independent source?"""

import numpy as np
import pytest
import sklearn.metrics

from toolchain.benchmark.scores import SCORES, confusion, interval, predicted, wilson


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 4, 300)
    scores = generator.normal(size=(300, 4)) + 1.5 * np.eye(4)[targets]
    return scores, targets


def test_accuracy_f1_and_confusion_agree_with_scikit_learn(answers: tuple[np.ndarray, np.ndarray]) -> None:
    scores, targets = answers
    classes = scores.argmax(axis=1)
    assert SCORES["accuracy"](scores, targets) == sklearn.metrics.accuracy_score(targets, classes)
    assert SCORES["f1_macro"](scores, targets) == pytest.approx(
        sklearn.metrics.f1_score(targets, classes, average="macro"), abs=1e-12
    )
    assert np.array_equal(confusion(scores, targets, 4), sklearn.metrics.confusion_matrix(targets, classes))


def test_errors_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    targets, outputs = generator.normal(size=100), generator.normal(size=(100, 1))
    assert SCORES["mae"](outputs, targets) == pytest.approx(sklearn.metrics.mean_absolute_error(targets, outputs[:, 0]))
    assert SCORES["rmse"](outputs, targets) == pytest.approx(sklearn.metrics.root_mean_squared_error(targets, outputs[:, 0]))
    assert SCORES["r2"](outputs, targets) == pytest.approx(sklearn.metrics.r2_score(targets, outputs[:, 0]))
    assert np.isnan(SCORES["r2"](outputs, np.ones(100)))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_gives_the_published_bounds(hits: int, n: int, low: float, high: float) -> None:
    """The examples of Newcombe 1998, Statistics in Medicine 17, table I, method 3 (four digits printed)."""
    found = wilson(hits, n)
    assert found == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_covers_as_it_says() -> None:
    """Of 60 samples from a known population some 57 intervals hold its value (binomial: 50 to 60 in 99.9 %)."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        targets = generator.normal(size=80)
        outputs = targets[:, None] + generator.normal(size=(80, 1))
        low, high = interval(SCORES["rmse"], outputs, targets)
        held += low <= 1.0 <= high
    assert held >= 50


def test_predicted_understands_scores_a_lone_probability_and_labels() -> None:
    assert predicted(np.array([[0.1, 0.9], [2.0, 1.0]])).tolist() == [1, 0]
    assert predicted(np.array([[0.4], [0.6]])).tolist() == [0, 1]
    assert predicted(np.array([2, 0])).tolist() == [2, 0]


def test_roc_auc_agrees_with_scikit_learn_on_ties_too() -> None:
    generator = np.random.default_rng(4)
    targets = np.arange(90) % 3 == 0
    scores = generator.normal(size=(90, 1)).round(0) + targets[:, None]
    expected = sklearn.metrics.roc_auc_score(targets, scores[:, 0])
    assert SCORES["roc_auc"](scores, targets.astype(np.int64)) == pytest.approx(expected, abs=1e-12)
    both = np.concatenate([-scores, scores], axis=1)
    assert SCORES["roc_auc"](both, targets.astype(np.int64)) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(SCORES["roc_auc"](scores, np.zeros(90, np.int64)))
