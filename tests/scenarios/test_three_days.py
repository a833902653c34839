"""Is every window told or told as dropped, over simulated hours with a broker that comes and goes? The whole days in the long suite."""

import pytest

from benchmarks.three_days import measure


def unmet(figures):
    return [figure for figure in figures if figure.holds is False]


def test_some_hours():
    assert unmet(measure(hours=6, inferences=5_000)) == []


@pytest.mark.slow
def test_three_days():
    assert unmet(measure()) == []
