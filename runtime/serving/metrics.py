"""What does `/metrics` say? Prometheus text exposition format 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import os
import resource
from collections.abc import Iterable, Iterator, Mapping

from runtime.contract.telemetry import LATENCY_CELLS_PER_OCTAVE
from runtime.monitor.monitor import Totals
from runtime.serving.inference import Inference
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository
from runtime.serving.models.shadow import Shadow

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_OCTAVES_PER_BUCKET = 2
_BUCKETS = 12
"""Bucket boundaries are 4**k microseconds: 4 us to 16.8 s."""


Counts = tuple[str, str, Mapping[str, int]]
"""Of another way in: a counter's name, what it counts, and how many by label: 'status="OK"' -> 7."""


def render_metrics(
    repository: Repository,
    inference: Inference,
    responses: Mapping[int, int],
    connections: int,
    more: Iterable[Counts] = (),
) -> bytes:
    """All metrics of the daemon's serving side. responses: HTTP status -> how many were sent."""
    served = [(_labels(model), model.monitor.totals()) for model in repository.models()]
    lines: list[str] = []
    for name, help_text, field in (
        ("edgewright_inferences_total", "Inferences begun, failed ones included.", "requests"),
        ("edgewright_inference_errors_total", "Inferences the engine failed at.", "errors"),
        ("edgewright_monitored_rows_total", "Examples counted for drift.", "rows"),
        ("edgewright_unmonitored_rows_total", "Examples served but not counted, beyond the monitor's budget.", "dropped_rows"),
    ):
        lines += _family(name, "counter", help_text, ((labels, getattr(totals, field)) for labels, totals in served))
    lines += ["# HELP edgewright_inference_seconds Time in the engine.", "# TYPE edgewright_inference_seconds histogram"]
    for labels, totals in served:
        lines += _histogram(labels, totals)
    lines += _queues(inference)
    lines += _shadows(repository.shadows())
    by_status = ((f'status="{status}"', count) for status, count in sorted(responses.items()))
    lines += _family("edgewright_http_responses_total", "counter", "HTTP responses by status.", by_status)
    lines += _family("edgewright_http_connections", "gauge", "Open HTTP connections.", [("", connections)])
    for name, help_text, by_label in more:
        lines += _family(name, "counter", help_text, sorted(by_label.items()))
    lines += _family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", [("", resident_bytes())])
    return ("\n".join(lines) + "\n").encode()


def resident_bytes() -> int:
    """Resident memory of this process now; its peak where the kernel does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - one read of a kernel file
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _labels(model: ServedModel) -> str:
    manifest = model.manifest  # names and versions have no character that would need escaping
    return f'model="{manifest.model}",version="{manifest.version}",target="{manifest.requires.profile}",role="{model.role}"'


def _queues(inference: Inference) -> Iterator[str]:
    waiting = ((_labels(model), count) for model, count in inference.queued.items() if not model.is_retired)
    yield from _family("edgewright_queued_requests", "gauge", "Requests in or before the model's own thread.", waiting)
    batches, joined = [("", inference.batches)], [("", inference.joined)]
    yield from _family("edgewright_batches_total", "counter", "Inferences that answered several requests at once.", batches)
    yield from _family("edgewright_batched_requests_total", "counter", "Requests answered by those.", joined)
    longest = [("", round(inference.stuck_s(), 3))]
    yield from _family("edgewright_inference_underway_seconds", "gauge", "Age of the oldest inference under way.", longest)


def _shadows(shadows: Iterable[Shadow]) -> Iterator[str]:
    told = [(_labels(shadow.served), shadow.totals(), shadow.queued) for shadow in shadows]
    by_outcome = (
        (f'{labels},outcome="{outcome}"', count)
        for labels, totals, _ in told
        for outcome, count in (
            ("agreed", totals.agreed),
            ("disagreed", totals.compared - totals.agreed),
            ("dropped", totals.dropped),
            ("failed", totals.failed),
        )
    )
    yield from _family("edgewright_shadow_rows_total", "counter", "Sampled examples by what came of them.", by_outcome)
    queued = ((labels, count) for labels, _, count in told)
    yield from _family("edgewright_shadow_queued_rows", "gauge", "Sampled examples that wait for their shadow.", queued)


def _family(name: str, kind: str, help_text: str, samples: Iterable[tuple[str, int | float]]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def _histogram(labels: str, totals: Totals) -> Iterator[str]:
    cells_per_bucket = _OCTAVES_PER_BUCKET * LATENCY_CELLS_PER_OCTAVE
    for bucket in range(1, _BUCKETS + 1):
        below = sum(totals.latency_cells[: bucket * cells_per_bucket])
        yield f'edgewright_inference_seconds_bucket{{{labels},le="{4**bucket / 1e6}"}} {below}'
    count = sum(totals.latency_cells)
    yield f'edgewright_inference_seconds_bucket{{{labels},le="+Inf"}} {count}'
    yield f"edgewright_inference_seconds_sum{{{labels}}} {totals.latency_sum_ns / 1e9}"
    yield f"edgewright_inference_seconds_count{{{labels}}} {count}"
