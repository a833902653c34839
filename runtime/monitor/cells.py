"""How does a stream of numbers become a few counts, and how far apart are two such counts?

NumPy only and pure: the toolchain makes edges and null distances from validation data, the device counts into the same
cells, and the service merges and compares. Counts merge by plain addition, exactly and in any order.

Cell k of a stream holds edges[k - 1] <= x < edges[k]; cell 0 also everything below, cell 31 everything above.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from runtime.contract.telemetry import CELLS, CONFIDENCE_CELLS, LATENCY_CELLS, LATENCY_CELLS_PER_OCTAVE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EDGES = CELLS - 1
MISSING = CELLS
OUT_OF_RANGE = CELLS + 1
COUNT_COLUMNS = CELLS + 2
DISTANCE_SCALE = 1_000_000
"""Distances cross the wire as integers: millionths."""

# Of the 32 cells, 26 share the central 98 % equally and 3 a side watch the tails: one splits the outermost percent at a
# thousandth, one reaches a quarter of the central span (1.2 sigma of a normal sample) beyond the sample, one is the rest.
_CENTRAL = np.linspace(0.01, 0.99, 27)
_PROBABILITIES = np.concatenate([[0.001], _CENTRAL, [0.999]])
_OUTER_REACH = 0.25
# A span below this share of the values is rounding of a constant. The edges around a constant start this far from it,
# relative to it, so that rounding stays inside.
_CONSTANT_SPAN = 1e-12
_CONSTANT_STEP = 1e-3
_HUGE = 1e300
# Where cells 1, 2, ... begin: looked up at every inference, a third of the time a logarithm takes.
LATENCY_STARTS_NS = [math.ceil(1000 * 2 ** (cell / LATENCY_CELLS_PER_OCTAVE)) for cell in range(1, LATENCY_CELLS)]
_LARGEST = float(np.finfo(np.float64).max)


def make_edges(sample: Floats) -> Floats:
    """31 strictly rising boundaries of the cells that suit a sample.

    sample: float64[n], any values; NaN, infinities and what exceeds 1e300 (its boundaries could overflow) are ignored.
    Boundaries lie half-way between neighbouring distinct
    values, never on one, so rounding does not move a discrete value to another cell. A discrete sample leaves boundaries
    over: they halve the widest gaps, where they catch values the sample never had. A constant sample c gets boundaries at
    c -+ step * 2**k around it.
    Raises ValueError when no finite value is left.
    """
    values = np.asarray(sample, dtype=np.float64).ravel()
    values = values[np.abs(values) <= _HUGE]
    if values.size == 0:
        raise ValueError("a sample without finite values has no cells")
    distinct = np.unique(values)
    smallest_span = _CONSTANT_SPAN * max(abs(distinct[0]), abs(distinct[-1]), np.finfo(np.float64).tiny)
    if distinct[-1] - distinct[0] <= smallest_span:
        return _edges_around(float(distinct[distinct.size // 2]))
    targets = np.quantile(values, _PROBABILITIES)
    above = np.clip(np.searchsorted(distinct, targets, side="right"), 1, distinct.size - 1)
    inner = distinct[above - 1] / 2 + distinct[above] / 2
    reach = _OUTER_REACH * max(targets[-2] - targets[1], smallest_span)
    return _fill(np.unique(np.concatenate([[distinct[0] - reach], inner, [distinct[-1] + reach]])))


def count_cells(edges: Floats, rows: Floats, low: Floats, high: Floats) -> Integers:
    """Count every stream's values into its cells.

    edges: float64[s, 31]; rows: float64[n, s]; low, high: float64[s] inclusive bounds, infinite where none are declared.
    Returns int64[s, 34]: columns 0..31 the cells, 32 missing (NaN), 33 out of range (infinite or outside the bounds);
    each value falls in exactly one column, so a stream's counts sum to n.
    """
    streams = edges.shape[0]
    columns = np.ascontiguousarray(rows.T)
    places = np.empty(columns.shape, dtype=np.intp)
    for index in range(streams):
        places[index] = edges[index].searchsorted(columns[index], side="right")
    # Bounds are drawn in to the finite numbers, so that one comparison finds infinities too.
    within = (columns >= np.maximum(low, -_LARGEST)[:, None]) & (columns <= np.minimum(high, _LARGEST)[:, None])
    if not within.all():
        places[~within] = OUT_OF_RANGE
        places[np.isnan(columns)] = MISSING
    places += np.arange(0, streams * COUNT_COLUMNS, COUNT_COLUMNS)[:, None]
    return np.bincount(places.ravel(), minlength=streams * COUNT_COLUMNS).reshape(streams, COUNT_COLUMNS)


def distance(reference: Integers, current: Integers) -> Floats:
    """How far two sets of cell counts lie apart: the mean of |F - G| under the pooled distribution.

    reference, current: int64[..., 32], broadcast against each other; any totals. Returns float64[...] from 0 (equal
    shares) to 0.5 (nothing in common); NaN where either side is empty. Symmetric, blind to monotone changes of scale, and
    it weighs a cell by what it holds, so the empty cells of a discrete stream count for nothing.
    Source: the two-sample Cramer-von Mises statistic (Anderson 1962) with |F - G| for its square; in words, how far
    through the ranks a typical value has moved.
    """
    with np.errstate(invalid="ignore"):
        p = reference / reference.sum(axis=-1, keepdims=True)
        q = current / current.sum(axis=-1, keepdims=True)
    gap = np.abs(np.cumsum(p - q, axis=-1))
    before = np.concatenate([np.zeros_like(gap[..., :1]), gap[..., :-1]], axis=-1)
    after = np.concatenate([gap[..., :-1], np.zeros_like(gap[..., :1])], axis=-1)
    result: Floats = ((p + q) / 2 * (before + after) / 2).sum(axis=-1)
    return result


def null_distances(counts: Integers, rows: int, draws: int, seed: int) -> Integers:
    """Distances that windows of `rows` rows show without any drift, in millionths, rising: int64[s, draws].

    counts: int64[s, 32], the reference. Both sides are redrawn from its shares, the reference at its own size: one from a
    few hundred validation rows is itself uncertain, and a null that took it for the truth would alarm on clean devices.
    A stream without counts gets zeros.
    """
    generator = np.random.default_rng(seed)
    result = np.zeros((counts.shape[0], draws), dtype=np.int64)
    for index, row in enumerate(counts):
        total = int(row.sum())
        if total == 0 or rows == 0:
            continue
        references = generator.multinomial(total, row / total, size=draws)
        windows = generator.multinomial(rows, row / total, size=draws)
        result[index] = np.sort(np.rint(distance(references, windows) * DISTANCE_SCALE).astype(np.int64))
    return result


def latency_cell(nanoseconds: int) -> int:
    """The logarithmic cell of a latency, as `telemetry.LATENCY_CELLS_PER_OCTAVE` defines it."""
    return bisect_right(LATENCY_STARTS_NS, nanoseconds)


def latency_quantile(cells: Mapping[int, int], q: float) -> int | None:
    """The latency below which a share q (0..1) of the requests lies, in ns: the geometric middle of its cell; None if empty."""
    total = sum(cells.values())
    if total == 0:
        return None
    filled = sorted(cell for cell, count in cells.items() if count)
    reached = accumulate(cells[cell] for cell in filled)
    # Rounding of q * total must not look past the last cell.
    cell = next((cell for cell, seen in zip(filled, reached, strict=True) if seen >= q * total), filled[-1])
    return round(1000 * 2 ** ((cell + 0.5) / LATENCY_CELLS_PER_OCTAVE))


def merge_latency(parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Sum of several latency histograms."""
    merged: dict[int, int] = {}
    for part in parts:
        for cell, count in part.items():
            merged[cell] = merged.get(cell, 0) + count
    return merged


def confidence_cell(confidence: Floats) -> Integers:
    """The confidence cell of each value in 0..1 (slightly outside counts as the end); -1 for NaN."""
    values = np.asarray(confidence, dtype=np.float64)
    cells = np.clip(np.nan_to_num(values) * CONFIDENCE_CELLS, 0, CONFIDENCE_CELLS - 1).astype(np.int64)
    return np.where(np.isnan(values), -1, cells)


def _edges_around(value: float) -> Floats:
    step = max(abs(value), 1.0) * _CONSTANT_STEP
    below = EDGES // 2
    return np.concatenate([value - step * 2.0 ** np.arange(below - 1, -1, -1), value + step * 2.0 ** np.arange(EDGES - below)])


def _fill(edges: Floats) -> Floats:
    """Halve the widest gaps until there are 31 edges."""
    while edges.size < EDGES:
        widest = int(np.argmax(np.diff(edges)))
        edges = np.insert(edges, widest + 1, edges[widest] / 2 + edges[widest + 1] / 2)
    return edges
