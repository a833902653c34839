"""How did a device behave, before and after its update, as far as its windows tell?

Sums over windows: they merge exactly, in any order, so evidence can be gathered piece by piece.
"""

import msgspec

from fleet.domain.jobs import Job
from runtime.contract.telemetry import CONFIDENCE_CELLS, Window
from runtime.monitor.cells import latency_quantile, merge_latency


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the windows of one artifact on one device. latency: log cell -> requests, as in `Window`."""

    windows: int = 0
    requests: int = 0
    errors: int = 0
    rows: int = 0
    dropped_rows: int = 0
    classes: tuple[int, ...] = ()
    confidence: tuple[int, ...] = ()
    latency: dict[int, int] = {}

    def plus(self, window: Window) -> "Behaviour":
        return Behaviour(
            windows=self.windows + 1,
            requests=self.requests + window.requests,
            errors=self.errors + window.errors,
            rows=self.rows + window.rows,
            dropped_rows=self.dropped_rows + window.dropped_rows,
            classes=_added(self.classes, window.classes),
            confidence=_added(self.confidence, window.confidence),
            latency=merge_latency((self.latency, window.latency)),
        )

    @property
    def error_share(self) -> float | None:
        """Failed requests out of all; None without any."""
        return self.errors / self.requests if self.requests else None

    def class_share(self, index: int) -> float:
        total = sum(self.classes)
        return self.classes[index] / total if total and index < len(self.classes) else 0.0

    @property
    def confidence_moments(self) -> tuple[float, float, int] | None:
        """Mean and variance of the confidence with the number of rows, from cell centres; None without any."""
        n = sum(self.confidence)
        if not n:
            return None
        centres = [(cell + 0.5) / CONFIDENCE_CELLS for cell in range(len(self.confidence))]
        mean = sum(c * k for c, k in zip(centres, self.confidence, strict=True)) / n
        variance = sum(k * (c - mean) ** 2 for c, k in zip(centres, self.confidence, strict=True)) / n
        return mean, variance, n

    @property
    def median_latency_ns(self) -> int | None:
        return latency_quantile(self.latency, 0.5)


class DeviceEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One device of the rollout. before: under its previous artifact, None when it had none; after: since it was told.

    unreadable: why this device's windows could not be read, "" when they could; such a device holds every gate.
    is_ours: not revoked, and its wanted state still speaks for this rollout.
    """

    job: Job
    before: Behaviour | None = None
    after: Behaviour = Behaviour()
    unreadable: str = ""
    is_ours: bool = True


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All a step may look at: every device of the rollout, jobs already settled from reports."""

    devices: tuple[DeviceEvidence, ...]


def _added(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Cell-wise sum; the shorter one counts as zeros behind its end."""
    short, long = sorted((left, right), key=len)
    return tuple(value + (short[index] if index < len(short) else 0) for index, value in enumerate(long))
