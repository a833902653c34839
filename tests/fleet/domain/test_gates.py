"""Every gate below, at and above its threshold; and what holds."""

import math

import pytest

from fleet.domain.evidence import Behaviour, DeviceEvidence, Evidence
from fleet.domain.gates import CHANCE_Z, GateLimits, Verdict, build_gates
from fleet.domain.jobs import Job, JobState

LIMITS = GateLimits(min_rows=100)


def job(name: str = "gw-1", state: JobState = JobState.SUCCEEDED, previous: str = "o") -> Job:
    return Job(device=name, stage=0, attempt=1, state=state, sha256="n", previous_sha256=previous, error_code="update.failed")


def behaviour(
    rows: int = 10_000, errors: int = 0, latency: int = 60, classes: tuple[int, ...] = (), confidence: tuple[int, ...] = ()
) -> Behaviour:
    return Behaviour(
        windows=1, requests=rows, errors=errors, rows=rows, classes=classes, confidence=confidence, latency={latency: rows}
    )


def judge(gate: str, *devices: DeviceEvidence, limits: GateLimits = LIMITS) -> Verdict:
    found = next(one for one in build_gates(limits) if one.name == gate)
    return found.judge(Evidence(devices=devices))


def compare(gate: str, before: Behaviour | None, after: Behaviour, limits: GateLimits = LIMITS) -> Verdict:
    return judge(gate, DeviceEvidence(job=job(), before=before, after=after), limits=limits)


@pytest.mark.parametrize(("failed", "decision"), [(1, "pass"), (2, "pass"), (3, "fail")])
def test_failed_updates_below_at_and_above_the_limit(failed: int, decision: str) -> None:
    devices = [DeviceEvidence(job=job(f"gw-{n}", JobState.FAILED if n < failed else JobState.SUCCEEDED)) for n in range(6)]
    verdict = judge("failed_updates", *devices, limits=GateLimits(max_failed_updates=2))
    assert verdict.decision == decision
    assert (verdict.failed, verdict.passed) == (failed, 6 - failed)


@pytest.mark.parametrize(("errors", "decision"), [(199, "pass"), (200, "pass"), (201, "fail")])
def test_error_share_below_at_and_above_the_limit(errors: int, decision: str) -> None:
    """1 % before; the share may rise by one point, and at 10,000 requests a point is seven standard errors."""
    assert compare("error_share", behaviour(errors=100), behaviour(errors=errors)).decision == decision


def test_fewer_errors_than_before_never_fail() -> None:
    assert compare("error_share", behaviour(errors=5_000), behaviour(errors=0)).decision == "pass"


def test_a_few_errors_by_chance_do_not_stop_a_rollout() -> None:
    """Three failures in a hundred exceed the limit and are still no more than chance may bring."""
    assert compare("error_share", behaviour(100), behaviour(100, errors=3)).decision == "pass"


def test_a_first_version_is_held_against_zero_errors() -> None:
    assert compare("error_share", None, behaviour(errors=50)).decision == "pass"
    assert compare("error_share", None, behaviour(errors=200)).decision == "fail"


@pytest.mark.parametrize(("cell", "decision"), [(64, "pass"), (68, "pass"), (69, "fail")])
def test_latency_below_at_and_above_the_limit(cell: int, decision: str) -> None:
    """Cells are an eighth of an octave: 8 cells up is exactly twice as slow, and twice is the limit here."""
    limits = GateLimits(max_latency_ratio=2.0)
    assert compare("latency", behaviour(latency=60), behaviour(latency=cell), limits).decision == decision


def with_class(share: float, rows: int = 10_000) -> Behaviour:
    hits = round(share * rows)
    return behaviour(rows, classes=(hits, rows - hits))


@pytest.mark.parametrize(("share", "decision"), [(0.149, "pass"), (0.15, "pass"), (0.151, "fail")])
def test_class_mix_below_at_and_above_the_limit(share: float, decision: str) -> None:
    assert compare("class_mix", with_class(0.1), with_class(share)).decision == decision


@pytest.mark.parametrize("side", [-1, 1])
def test_class_mix_needs_four_standard_errors_too(side: int) -> None:
    """At 200 rows a share near one half moves by up to 4 * sqrt(0.25 * 2 / 200) = 20 points by chance."""
    rows = 200
    bound = CHANCE_Z * math.sqrt(0.25 * 2 / rows)
    for step, decision in ((0.93, "pass"), (1.1, "fail")):
        moved = 0.5 + side * bound * step
        assert compare("class_mix", with_class(0.5, rows), with_class(moved, rows)).decision == decision


def test_the_class_that_moved_most_is_named() -> None:
    before = behaviour(classes=(1000,) * 10)
    after = behaviour(classes=(1000, 1000, 1000, 0, 1000, 1000, 1000, 1000, 2000, 1000))
    verdict = compare("class_mix", before, after)
    assert verdict.decision == "fail"
    assert verdict.findings[0].subject in ("3", "8")
    assert "gw-1" in verdict.reason


def confident(mean: float, rows: int = 10_000) -> Behaviour:
    """Two neighbouring cells mixed so that the mean is exact."""
    cells = [0] * 20
    position = mean * 20 - 0.5
    low = int(position)
    upper = round((position - low) * rows)
    cells[low], cells[low + 1] = rows - upper, upper
    return behaviour(rows, confidence=tuple(cells))


@pytest.mark.parametrize(("mean", "decision"), [(0.853, "pass"), (0.85, "pass"), (0.847, "fail"), (0.953, "fail")])
def test_confidence_below_at_and_above_the_limit(mean: float, decision: str) -> None:
    assert compare("confidence", confident(0.9), confident(mean)).decision == decision


@pytest.mark.parametrize("gate", ["error_share", "latency", "class_mix", "confidence"])
class TestWhatHolds:
    def test_too_few_rows_since_the_update(self, gate: str) -> None:
        assert compare(gate, behaviour(), behaviour(99)).decision == "hold"
        assert compare(gate, behaviour(), behaviour(100)).decision == "pass"

    def test_too_few_rows_before_the_update(self, gate: str) -> None:
        assert compare(gate, behaviour(99), behaviour()).decision == "hold"

    def test_no_rows_at_all(self, gate: str) -> None:
        assert compare(gate, Behaviour(), Behaviour()).decision == "hold"

    def test_windows_that_cannot_be_read(self, gate: str) -> None:
        device = DeviceEvidence(job=job(), before=behaviour(), after=behaviour(), unreadable="window 1/2: Malformed")
        assert judge(gate, device).decision == "hold"

    def test_nobody_has_updated(self, gate: str) -> None:
        assert judge(gate, DeviceEvidence(job=job(state=JobState.DISPATCHED))).decision == "hold"

    def test_a_failing_device_outweighs_a_holding_one(self, gate: str) -> None:
        bad = Behaviour(
            windows=1, requests=10_000, errors=5_000, rows=10_000, classes=(10_000, 0), confidence=(10_000,) + (0,) * 19,
            latency={200: 10_000},
        )  # fmt: skip
        good = behaviour(classes=(5_000, 5_000), confidence=(0,) * 19 + (10_000,))
        devices = [
            DeviceEvidence(job=job("gw-1"), before=good, after=behaviour(5)),
            DeviceEvidence(job=job("gw-2"), before=good, after=bad),
        ]
        verdict = judge(gate, *devices)
        assert verdict.decision == "fail"
        assert verdict.findings[0].device == "gw-2"
        assert (verdict.failed, verdict.held) == (1, 1)

    def test_switched_off_by_the_operator(self, gate: str) -> None:
        assert compare(gate, behaviour(5), behaviour(5), GateLimits(min_rows=0)).decision == "pass"

    def test_a_first_version_has_no_past_to_wait_for(self, gate: str) -> None:
        assert compare(gate, None, behaviour()).decision == "pass"


def test_a_model_without_classes_passes_the_gates_about_them() -> None:
    assert compare("class_mix", behaviour(), behaviour()).decision == "pass"
    assert compare("confidence", behaviour(), behaviour()).decision == "pass"
