"""Does every target get the right variant, and every other one an honest reason?"""

import msgspec
import pytest

from toolchain.errors import LimitError
from toolchain.pipeline.choose import Candidate, Rules, choose
from toolchain.pipeline.products import CheckedModel, Choice
from toolchain.pipeline.record import DropResult, LatencyResult, MetricResult, ParityResult

FLOAT, VINO, INT8 = "onnxruntime-float32", "openvino-float32", "onnxruntime-int8"


def candidate(
    name: str,
    ratio: tuple[float, float] | None = (1.0, 1.0),
    *,
    drop: float = 0.0,
    ok: bool = True,
    p90_us: int = 100,
    unlike: str = "",
    size_bytes: int = 1000,
) -> Candidate:
    metric = MetricResult(name="accuracy", goal="max", value=0.9, low=0.8, high=0.95, n=100, split="validation")
    parity = ParityResult(max_abs=0.1, relative=0.01, agreement=1.0, ok=ok)
    latency = None
    if ratio is not None:
        latency = LatencyResult(
            p50_ns=p90_us * 900, p90_ns=p90_us * 1000, p99_ns=p90_us * 1100, mean_ns=p90_us * 950, samples=1000, threads=1,
            batch=1, ratio=sum(ratio) / 2, ratio_low=ratio[0], ratio_high=ratio[1],
        )  # fmt: skip
    lost = DropResult(value=drop, low=drop - 0.01, high=drop + 0.01, n=100)
    checked = CheckedModel(metrics=(metric,), drop=lost, parity=parity)
    return Candidate(name=name, checked=checked, size_bytes=size_bytes, latency=latency, unlike=unlike)


def rules(**changes: object) -> Rules:
    return Rules(**({"target": "t", "metric": "accuracy", "max_drop": 0.01, "max_latency_ms": None} | changes))  # type: ignore[arg-type]


def decide(*candidates: Candidate, measured: bool = True, **changes: object) -> Choice:
    return choose(candidates, FLOAT, rules(**changes), measured=measured)


@pytest.mark.parametrize(
    ("vino", "int8", "chosen"),
    [
        ((0.5, 0.6), (0.7, 0.8), FLOAT),  # both slower
        ((0.5, 0.6), (0.9, 1.1), FLOAT),  # int8 cannot be told from float
        ((0.5, 0.6), (1.0, 1.2), FLOAT),  # at the border: not surely faster
        ((0.5, 0.6), (1.01, 1.2), INT8),  # surely faster
        ((1.5, 1.7), (1.6, 1.8), VINO),  # intervals overlap: the profile's order decides
        ((1.5, 1.7), (1.71, 1.8), INT8),  # they do not
        ((0.9, 2.0), (1.5, 1.6), INT8),  # overlaps with the fastest, but may be slower than float
    ],
)
def test_fastest_wins_order_decides_ties_and_float_stays_unless_surely_beaten(
    vino: tuple[float, float], int8: tuple[float, float], chosen: str
) -> None:
    assert decide(candidate(FLOAT), candidate(VINO, vino), candidate(INT8, int8)).chosen == chosen


@pytest.mark.parametrize(("drop", "chosen"), [(0.009, INT8), (0.01, INT8), (0.011, FLOAT)])
def test_metric_limit_below_at_above(drop: float, chosen: str) -> None:
    choice = decide(candidate(FLOAT), candidate(INT8, (2.0, 2.1), drop=drop))
    assert choice.chosen == chosen


@pytest.mark.parametrize(("p90_us", "passes"), [(99, True), (100, True), (101, False)])
def test_latency_limit_below_at_above(p90_us: int, passes: bool) -> None:
    choice = decide(candidate(FLOAT, p90_us=p90_us), max_latency_ms=0.1)
    assert choice.chosen == (FLOAT if passes else "")
    if not passes:
        assert choice.nearest == FLOAT
        assert "nearest is onnxruntime-float32 with p90 0.101 ms" in choice.reason


@pytest.mark.parametrize(("size_bytes", "passes"), [(999, True), (1000, True), (1001, False)])
def test_size_limit_below_at_above(size_bytes: int, passes: bool) -> None:
    choice = decide(candidate(FLOAT, size_bytes=size_bytes), max_size_kb=1.0)
    assert choice.chosen == (FLOAT if passes else "")
    if not passes:
        assert choice.nearest == FLOAT
        assert "no variant meets max_size_kb = 1; nearest is onnxruntime-float32 with 1.0 kB" in choice.reason


@pytest.mark.parametrize(("limit", "passes"), [(0.89, True), (0.9, True), (0.91, False)])
def test_the_metric_s_own_limit_below_at_above(limit: float, passes: bool) -> None:
    choice = decide(candidate(FLOAT), metric_limit=limit)
    assert choice.chosen == (FLOAT if passes else "")
    if not passes:
        assert "accuracy is 0.9000 on validation data, the limit 0.91" in choice.reason


def test_every_variant_gets_a_verdict_and_a_reason() -> None:
    choice = decide(
        candidate(FLOAT), candidate(VINO, (0.5, 0.6)), candidate(INT8, None, unlike="int8 was measured with avx512_vnni")
    )
    assert [(item.name, item.verdict) for item in choice.judgements] == [(FLOAT, "chosen"), (VINO, "passed"), (INT8, "rejected")]
    assert "slower than" in choice.judgements[1].reason
    assert choice.judgements[2].reason == "int8 was measured with avx512_vnni"


def test_a_variant_that_differs_from_the_network_is_rejected() -> None:
    choice = decide(candidate(FLOAT), candidate(VINO, (2.0, 2.1), ok=False))
    assert choice.chosen == FLOAT
    assert "differ from the float model" in choice.judgements[1].reason


def test_no_variant_left_names_the_nearest() -> None:
    choice = decide(candidate(FLOAT, drop=0.03), candidate(VINO, (1.0, 1.0), drop=0.02))
    assert (choice.chosen, choice.nearest) == ("", VINO)
    assert "nearest is openvino-float32: accuracy drops by 0.0200" in choice.reason
    assert [item.verdict for item in choice.judgements] == ["rejected", "rejected"]


def test_a_metric_where_less_is_better_rises() -> None:
    worse = candidate(VINO, (2.0, 2.1), drop=0.02)
    mae = msgspec.structs.replace(worse.checked.metrics[0], name="mae", goal="min")
    worse = msgspec.structs.replace(worse, checked=msgspec.structs.replace(worse.checked, metrics=(mae,)))
    choice = decide(candidate(FLOAT), worse, metric="mae")
    assert choice.judgements[1].reason == "mae rises by 0.0200 on validation data, more than 0.01"


def test_float_baseline_over_its_limit_leaves_the_rest() -> None:
    choice = decide(candidate(FLOAT, p90_us=200), candidate(INT8, (1.9, 2.1)), max_latency_ms=0.15)
    assert choice.chosen == INT8


def test_unmeasured_follows_the_order_and_refuses_a_latency_limit() -> None:
    candidates = (candidate(FLOAT, None), candidate(INT8, None))
    assert decide(*candidates, measured=False).chosen == FLOAT
    with pytest.raises(LimitError, match="--allow-unmeasured"):
        decide(*candidates, measured=False, max_latency_ms=1.0)
    assert decide(*candidates, measured=False, max_latency_ms=1.0, allow_unmeasured=True).chosen == FLOAT


def test_unmeasured_still_holds_the_metric_s_limit() -> None:
    assert decide(candidate(FLOAT, None, ok=False), candidate(VINO, None), measured=False).chosen == VINO
