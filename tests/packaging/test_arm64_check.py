"""What counts as a difference between two machines' outputs."""

import numpy as np
import pytest

from benchmarks.arm64.__main__ import TOLERANCE, largest_difference

HERE = [{"scores": np.array([[0.25, 0.75]], np.float32)}]


@pytest.mark.parametrize(("off", "is_equal"), [(0.0, True), (0.9e-4, True), (1.1e-4, False), (-1.1e-4, False)])
def test_difference_is_the_largest_of_all(off: float, is_equal: bool) -> None:
    there = [{"scores": HERE[0]["scores"] + np.array([[0, off]], np.float32)}]
    assert (largest_difference(there, HERE) <= TOLERANCE) is is_equal


@pytest.mark.parametrize("there", [{}, {"scores": np.array([0.25, 0.75])}, {"scores": np.array([[0.25, np.nan]])}])
def test_missing_reshaped_or_nan_is_never_equal(there: dict[str, np.ndarray]) -> None:
    assert largest_difference([there], HERE) == float("inf")
