"""Do cells keep what they promise: total counts, rising edges, exact merging, and a distance that means something?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.contract.telemetry import CELLS, LATENCY_CELLS
from runtime.monitor import cells

ANY_FLOATS = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(width=64))
UNBOUNDED = np.array([-np.inf]), np.array([np.inf])


def count_one(edges, values):
    return cells.count_cells(edges[None], np.asarray(values, dtype=np.float64)[:, None], *UNBOUNDED)[0]


@given(ANY_FLOATS)
def test_edges_of_any_sample_rise_strictly(sample):
    if not (np.abs(sample) <= 1e300).any():
        with pytest.raises(ValueError, match="finite"):
            cells.make_edges(sample)
        return
    edges = cells.make_edges(sample)
    assert edges.shape == (31,)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()


def test_cells_of_a_normal_sample_hold_their_quantiles():
    sample = np.random.default_rng(1).normal(size=100_000)
    counts = count_one(cells.make_edges(sample), sample)[:CELLS]
    np.testing.assert_allclose(counts[3:29] / sample.size, 0.98 / 26, atol=1e-4)
    np.testing.assert_allclose(counts[[1, 30]] / sample.size, 0.001, atol=1e-4)
    assert counts[0] == counts[31] == 0


def test_a_discrete_sample_keeps_its_values_apart_and_away_from_edges():
    sample = np.random.default_rng(2).integers(0, 17, size=500).astype(np.float64)
    edges = cells.make_edges(sample)
    assert not np.isin(np.unique(sample), edges).any()
    assert len({int(np.searchsorted(edges, value)) for value in np.unique(sample)}) == 17
    np.testing.assert_array_equal(count_one(edges, sample), count_one(edges, sample * (1 + 1e-9)))


@pytest.mark.parametrize("constant", [0.0, 1.0, -273.15, 1e-30, 1e12])
def test_a_constant_sample_lies_inside_one_cell_and_change_leaves_it(constant):
    edges = cells.make_edges(np.full(40, constant))
    home = int(np.searchsorted(edges, constant, side="right"))
    assert count_one(edges, [constant, np.nextafter(constant, np.inf), constant * (1 - 1e-9)])[home] == 3
    assert count_one(edges, [constant * 1.1 + 1, constant * 0.9 - 1])[home] == 0


def test_values_the_sample_never_had_fall_into_cells_of_their_own():
    edges = cells.make_edges(np.array([0.0, 1.0] * 50))
    reference = count_one(edges, [0, 1])[:CELLS]
    assert not (count_one(edges, [0.5, 7.0, -7.0])[:CELLS] * reference).any()


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(0, 40), st.just(3)), elements=st.floats(width=64)),
    hnp.arrays(np.float64, st.tuples(st.integers(0, 40), st.just(3)), elements=st.floats(width=64)),
)
def test_counts_are_total_and_merge_by_addition(first, second):
    edges = np.stack([cells.make_edges(np.arange(50.0)), cells.make_edges(np.ones(3)), cells.make_edges(np.array([0.0, 1e9]))])
    low, high = np.array([-np.inf, 0.0, -1e5]), np.array([np.inf, 2.0, 1e5])
    parts = [cells.count_cells(edges, rows, low, high) for rows in (first, second)]
    assert (parts[0].sum(axis=1) == len(first)).all()
    np.testing.assert_array_equal(parts[0] + parts[1], cells.count_cells(edges, np.concatenate([first, second]), low, high))


def test_missing_and_out_of_range_are_counted_apart_from_cells():
    edges = cells.make_edges(np.linspace(0, 1, 100))[None]
    rows = np.array([[np.nan], [np.inf], [-np.inf], [1.5], [-0.5], [0.0], [1.0]])
    bounded = cells.count_cells(edges, rows, np.array([0.0]), np.array([1.0]))[0]
    assert (bounded[cells.MISSING], bounded[cells.OUT_OF_RANGE], bounded[:CELLS].sum()) == (1, 4, 2)
    unbounded = cells.count_cells(edges, rows, *UNBOUNDED)[0]
    assert (unbounded[cells.MISSING], unbounded[cells.OUT_OF_RANGE], unbounded[:CELLS].sum()) == (1, 2, 4)


COUNTS = hnp.arrays(np.int64, CELLS, elements=st.integers(0, 1000)).filter(lambda counts: counts.sum() > 0)


@given(COUNTS, COUNTS)
def test_distance_is_symmetric_bounded_and_zero_only_for_equal_shares(first, second):
    value = cells.distance(first, second)
    assert 0 <= value <= 0.5 + 1e-12
    assert value == pytest.approx(cells.distance(second, first))
    assert cells.distance(first, 3 * first) == pytest.approx(0, abs=1e-12)
    if not np.allclose(first / first.sum(), second / second.sum()):
        assert value > 0


def test_distance_follows_its_definition_on_raw_values():
    """Against |F - G| averaged over the pooled raw sample: cells may cost 1 % of the range."""
    generator = np.random.default_rng(3)
    reference = generator.normal(size=20_000)
    edges = cells.make_edges(reference)
    for shift, scale in [(0.5, 1), (0, 2), (3, 0.1)]:
        current = generator.normal(shift, scale, size=20_000)
        pooled = np.concatenate([reference, current])
        f = np.searchsorted(np.sort(reference), pooled, side="right") / reference.size
        g = np.searchsorted(np.sort(current), pooled, side="right") / current.size
        found = cells.distance(count_one(edges, reference)[:CELLS], count_one(edges, current)[:CELLS])
        assert found == pytest.approx(np.abs(f - g).mean(), abs=0.01)


def test_distance_of_an_empty_side_is_not_a_number():
    assert np.isnan(cells.distance(np.zeros(CELLS, np.int64), np.ones(CELLS, np.int64)))


def test_null_holds_for_clean_windows_even_with_a_small_reference():
    """Share of clean windows above the null's 95 % point: 5 %, within 4 standard errors of 400 trials."""
    generator = np.random.default_rng(4)
    exceeded, trials = 0, 400
    for trial in range(trials):
        reference = generator.normal(size=90)
        edges = cells.make_edges(reference)
        counts = count_one(edges, reference)[:CELLS]
        null = cells.null_distances(counts[None], rows=100, draws=200, seed=trial)[0]
        current = count_one(edges, generator.normal(size=100))[:CELLS]
        exceeded += cells.distance(counts, current) * cells.DISTANCE_SCALE > null[189]
    assert abs(exceeded / trials - 0.05) < 4 * np.sqrt(0.05 * 0.95 / trials)


def test_null_is_rising_repeatable_and_below_a_half_sigma_shift():
    generator = np.random.default_rng(5)
    reference = generator.normal(size=2000)
    edges = cells.make_edges(reference)
    counts = count_one(edges, reference)[:CELLS]
    both = np.stack([counts, np.zeros_like(counts)])
    null = cells.null_distances(both, rows=200, draws=500, seed=9)
    assert (np.diff(null[0]) >= 0).all()
    assert not null[1].any()
    np.testing.assert_array_equal(null, cells.null_distances(both, rows=200, draws=500, seed=9))
    shifted = count_one(edges, generator.normal(0.5, size=200))[:CELLS]
    assert cells.distance(counts, shifted) * cells.DISTANCE_SCALE > 1.5 * null[0, -1]


@given(st.integers(0, 2**63))
def test_latency_cells_hold_what_their_definition_says(nanoseconds):
    cell = cells.latency_cell(nanoseconds)
    microseconds = nanoseconds / 1000
    if 0 < cell < LATENCY_CELLS - 1:
        assert 2 ** (cell / 8) * (1 - 1e-12) <= microseconds < 2 ** ((cell + 1) / 8) * (1 + 1e-12)
    elif cell == 0:
        assert microseconds < 2 ** (1 / 8) * (1 + 1e-12)


@given(st.lists(st.integers(1_100, 10**11), min_size=1, max_size=50), st.floats(0, 1))
def test_latency_quantiles_lie_within_half_a_cell(values, q):
    histogram = cells.merge_latency({cells.latency_cell(value): 1} for value in values)
    assert sum(histogram.values()) == len(values)
    exact = sorted(values)[max(0, int(np.ceil(q * len(values))) - 1)]
    assert cells.latency_quantile(histogram, q) / exact == pytest.approx(1, rel=0.045)


def test_latency_of_nothing_has_no_quantile():
    assert cells.latency_quantile({}, 0.5) is None
    assert cells.latency_quantile({3: 0}, 0.5) is None


def test_confidence_cells():
    values = np.array([0.0, 0.049, 0.05, 0.999, 1.0, 1.0000001, -1e-9, np.nan])
    assert cells.confidence_cell(values).tolist() == [0, 0, 1, 19, 19, 19, 0, -1]
