"""Windows as charts: traffic, errors, latency and whatever resources the device sampled."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from fleet.dashboard import charts
from fleet.dashboard.reading.windows import WindowFacts, merged_latency
from fleet.dashboard.views import wording
from runtime.monitor.cells import latency_quantile

BUCKETS = 120
"""Samples per chart at most: about one per five pixels at desk width."""
GAP_WINDOWS = 2.5
"""A pause longer than so many windows is drawn as a gap, since the device said nothing meanwhile."""
TITLES = {"rss_bytes": "Memory of the daemon", "memory_free_bytes": "Memory free", "disk_free_bytes": "Disk free"}
DAY_S = 86_400
CPU = "cpu_ms"
"""A resource that counts up from the start of the process; a chart shows how fast."""
UNITS: tuple[tuple[str, Callable[[float], str], float], ...] = (
    ("_bytes", lambda value: f"{wording.significant(value)} MiB", 2.0**-20),
    ("_ns", wording.latency, 1.0),
    ("_ms", wording.latency, 1e6),
    ("_millicelsius", lambda value: f"{value:.0f} °C", 1e-3),
    ("_celsius", lambda value: f"{value:.0f} °C", 1.0),
    ("_permille", lambda value: f"{value:.0f} %", 0.1),
    ("_percent", lambda value: f"{value:.0f} %", 1.0),
)
"""Resources are named with their unit; suffix, how to write it, factor to what the writer takes."""


class Bucket:
    """Windows that share one sample of a chart; `at` is the middle of what they cover. previous: the bucket's before."""

    def __init__(self, windows: Sequence[WindowFacts], previous: Sequence[WindowFacts]) -> None:
        first, last = windows[0], windows[-1]
        self.at = (first.start_s + last.start_s + last.duration_s) / 2
        self.windows = windows
        self.previous = previous
        self.seconds = sum(window.duration_s for window in windows)
        self.requests = sum(window.requests for window in windows)
        self.errors = sum(window.errors for window in windows)
        self.latency = merged_latency(windows)


def window_charts(windows: Sequence[WindowFacts], *, start: float, end: float) -> list[charts.Plot]:
    """Charts of one model's windows, oldest first. start, end: Unix seconds of the axis."""
    buckets = bucketed(windows, start, end)
    marks = version_marks(windows)

    def chart(title: str, label_y: Callable[[float], str], *series: charts.Series, floor_top: float = 0.0) -> charts.Plot:
        return charts.plot(
            title,
            series,
            span=(start, end),
            label_x=wording.hour if end - start <= DAY_S else wording.day_hour,
            label_y=label_y,
            tick_x=wording.hour_minute if end - start <= DAY_S else wording.day_hour,
            tick_y=lambda value: wording.without_zeros(label_y(value)),
            marks=marks,
            floor_top=floor_top,
        )

    def points(value: Callable[[Bucket], float | None]) -> list[tuple[float, float | None]]:
        return _with_gaps(buckets, value)

    return [
        chart(
            "Requests",
            lambda value: f"{wording.significant(value)}/s",
            charts.Series(
                "rate", "series-1", points(lambda one: one.requests / one.seconds if one.seconds else None), filled=True
            ),
        ),
        chart(
            "Latency",
            wording.latency,
            charts.Series("p50", "series-1", points(lambda one: latency_quantile(one.latency, 0.5))),
            charts.Series("p99", "series-3", points(lambda one: latency_quantile(one.latency, 0.99))),
        ),
        chart(
            "Failed requests",
            lambda value: wording.percent(value, 2 if value < 0.1 else 0),
            charts.Series(
                "share", "tone-bad", points(lambda one: one.errors / one.requests if one.requests else None), filled=True
            ),
            floor_top=0.01,
        ),
        *_resource_charts(buckets, chart, points),
    ]


def bucketed(windows: Sequence[WindowFacts], start: float, end: float) -> list[Bucket]:
    """Windows in at most BUCKETS groups of equal time."""
    width = max((end - start) / BUCKETS, 1e-9)
    groups: dict[int, list[WindowFacts]] = {}
    for window in windows:
        groups.setdefault(int((window.start_s - start) // width), []).append(window)
    ordered = [group for _, group in sorted(groups.items())]
    return [Bucket(group, previous) for previous, group in zip([[], *ordered], ordered, strict=False)]


def version_marks(windows: Sequence[WindowFacts]) -> list[tuple[float, str, str]]:
    """Where the serving artifact changed."""
    pairs = pairwise(windows)
    return [(after.start_s, f"switched to {after.version}", "busy") for before, after in pairs if before.sha256 != after.sha256]


def _with_gaps(buckets: Sequence[Bucket], value: Callable[[Bucket], float | None]) -> list[tuple[float, float | None]]:
    points: list[tuple[float, float | None]] = []
    previous: Bucket | None = None
    for bucket in buckets:
        if previous is not None:
            expected = max(bucket.seconds, previous.seconds, bucket.windows[0].duration_s)
            if bucket.at - previous.at > GAP_WINDOWS * expected:
                points.append(((bucket.at + previous.at) / 2, None))
        points.append((bucket.at, value(bucket)))
        previous = bucket
    return points


def _resource_charts(
    buckets: Sequence[Bucket],
    chart: Callable[..., charts.Plot],
    points: Callable[[Callable[[Bucket], float | None]], list[tuple[float, float | None]]],
) -> list[charts.Plot]:
    names = sorted({name for bucket in buckets for window in bucket.windows for name in window.message.resources})
    plots = []
    if CPU in names:
        plots.append(
            chart(
                "CPU",
                lambda value: f"{value:.0f} %",
                charts.Series("of one core", "series-2", points(_cpu_percent)),
                floor_top=10.0,
            )
        )
    for name in names:
        if name != CPU:
            title, write, factor = resource_words(name)
            plots.append(chart(title, write, charts.Series("mean", "series-2", points(partial(_mean, name, factor)))))
    return plots


def resource_words(name: str) -> tuple[str, Callable[[float], str], float]:
    """Title, writer and factor of a resource by the unit its name ends in; an unknown unit is a plain count."""
    for suffix, write, factor in UNITS:
        if name.endswith(suffix):
            return TITLES.get(name) or name.removesuffix(suffix).replace("_", " ").capitalize(), write, factor
    return name.replace("_", " ").capitalize(), wording.count, 1.0


def _mean(name: str, factor: float, bucket: Bucket) -> float | None:
    samples = [window.message.resources[name] for window in bucket.windows if name in window.message.resources]
    return factor * sum(samples) / len(samples) if samples else None


def _cpu_percent(bucket: Bucket) -> float | None:
    """CPU time per wall time between a bucket's first and last window of its newest boot; None with fewer than two."""
    boot = bucket.windows[-1].message.boot
    samples = [
        (window.start_s + window.duration_s, window.message.resources[CPU])
        for window in (*bucket.previous[-1:], *bucket.windows)
        if window.message.boot == boot and CPU in window.message.resources
    ]
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return None
    return max(0.1 * (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0]), 0.0)
