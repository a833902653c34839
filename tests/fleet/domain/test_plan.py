"""Who is matched, who gets what, in which stage; and which plans are refused."""

import msgspec
import pytest

from fleet.domain.plan import Candidate, Offer, Plan, Stage, assign, check_plan, matches, resolve
from fleet.errors import NoArtifactError, NoDeviceError, PlanError
from runtime.contract.artifact import EngineRange, Fallback, Requirements
from runtime.contract.deployment import DeviceProfile

PROFILE = DeviceProfile(
    profiles=("x86-64-vnni", "x86-64-cpu"),
    arch="x86_64",
    engines={"onnxruntime": "1.31.0", "openvino": "2026.4.1"},
    instruction_sets=("avx2",),
    memory_bytes=1000,
)


def offer(target: str = "x86-64-cpu", **changes: object) -> Offer:
    values = {
        "profile": target,
        "arch": "x86_64",
        "engine": "onnxruntime",
        "engine_range": EngineRange(at_least="1.20", below="2"),
    }
    return Offer(target=target, sha256=target, requires=Requirements(**{**values, **changes}))  # type: ignore[arg-type]


def device(name: str, **changes: object) -> Candidate:
    values: dict[str, object] = {"labels": {}, "profile": PROFILE, "online": True}
    return Candidate(device=name, **{**values, **changes})  # type: ignore[arg-type]


def plan(**changes: object) -> Plan:
    return Plan(model="digits", version="1.0.0", **changes)  # type: ignore[arg-type]


def test_a_device_gets_the_best_of_the_profiles_it_reports() -> None:
    assert resolve(PROFILE, [offer("x86-64-cpu"), offer("x86-64-vnni")])[0] == offer("x86-64-vnni")
    assert resolve(PROFILE, [offer("x86-64-cpu"), offer("pi5")])[0] == offer("x86-64-cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "aarch64"}, "not aarch64"),
        ({"engine": "tensorrt"}, "lacks tensorrt"),
        ({"engine_range": EngineRange(at_least="1.31.1", below="2")}, "1.31.0"),
        ({"engine_range": EngineRange(at_least="1.0", below="1.31")}, "1.31.0"),
        ({"instruction_sets": ("avx512_vnni",)}, "avx512_vnni"),
        ({"memory_bytes": 1001}, "1001"),
    ],
)
def test_what_a_device_lacks_is_named(changes: dict[str, object], words: str) -> None:
    found, reason = resolve(PROFILE, [offer(**changes)])
    assert found is None
    assert words in reason


@pytest.mark.parametrize(
    ("fallbacks", "fits"),
    [
        ((("openvino", "2026.0", "2027"),), True),
        ((("openvino", "2027.0", "2028"),), False),
        ((("nonesuch", "1", "2"), ("onnxruntime", "1.20", "2")), True),
        ((), False),
    ],
)
def test_one_of_the_engines_is_enough(fallbacks: tuple[tuple[str, str, str], ...], fits: bool) -> None:
    others = tuple(Fallback(engine=engine, engine_range=EngineRange(at_least=low, below=high)) for engine, low, high in fallbacks)
    found, reason = resolve(PROFILE, [msgspec.structs.replace(offer(engine="tensorrt"), fallbacks=others)])
    assert (found is not None) is fits
    assert fits or ("lacks tensorrt" in reason and all(engine in reason for engine, _, _ in fallbacks))


@pytest.mark.parametrize(("at_least", "below", "fits"), [
    ("1.31.0", "2", True), ("1.31", "1.32", True), ("1.31.1", "2", False), ("1.30", "1.31.0", False), ("1.9", "1.100", True),
])  # fmt: skip
def test_engine_ranges_compare_numbers_not_letters(at_least: str, below: str, fits: bool) -> None:
    span = EngineRange(at_least=at_least, below=below)
    assert (resolve(PROFILE, [offer(engine_range=span)])[0] is not None) is fits


@pytest.mark.parametrize(
    ("changes", "is_matched"),
    [
        ({}, True),
        ({"labels": {"site": "lab"}}, True),
        ({"labels": {"site": "lab", "row": "2"}}, False),
        ({"labels": {"site": "roof"}}, False),
        ({"profile": "x86-64-cpu"}, True),
        ({"profile": "pi5"}, False),
        ({"current_version": "0.9.0"}, True),
        ({"current_version": "0.8.0"}, False),
    ],
)
def test_the_filter_wants_everything_it_names(changes: dict[str, object], is_matched: bool) -> None:
    found = device("gw-1", labels={"site": "lab"}, serving_version="0.9.0")
    assert matches(plan(**changes), found) is is_matched


def test_a_device_without_a_report_has_no_profile_and_no_version() -> None:
    silent = device("gw-1", profile=None)
    assert not matches(plan(profile="x86-64-cpu"), silent)
    with pytest.raises(NoArtifactError, match="not reported"):
        assign("r-1", plan(), [silent], [offer()])


def test_stages_are_cumulative_and_percent_rounds_up() -> None:
    stages = (Stage(count=1), Stage(percent=10), Stage(percent=50), Stage(percent=100))
    parts, _ = assign("r-1", plan(stages=stages), [device(f"gw-{n}") for n in range(15)], [offer()])
    sizes = [sum(part.stage == number for part in parts) for number in range(4)]
    assert sizes == [1, 1, 6, 7]  # 1, then 2, 8 and 15 in all


def test_devices_beyond_the_last_stage_are_left_alone() -> None:
    parts, _ = assign("r-1", plan(stages=(Stage(count=2),)), [device(f"gw-{n}") for n in range(5)], [offer()])
    assert len(parts) == 2


def test_online_devices_go_first_and_the_lot_differs_between_rollouts() -> None:
    devices = [device(f"gw-{n}", online=n == 7) for n in range(20)]
    firsts = set()
    for number in range(20):
        parts, _ = assign(f"r-{number}", plan(), devices, [offer()])
        assert parts[0].device == "gw-7"
        firsts.add(parts[1].device)
    assert len(firsts) > 5


def test_nobody_matches() -> None:
    with pytest.raises(NoDeviceError, match="site = roof"):
        assign("r-1", plan(labels={"site": "roof"}), [device("gw-1")], [offer()])


def test_a_matched_device_without_an_artifact_stops_the_plan_unless_it_may_be_skipped() -> None:
    devices = [device("gw-1"), device("pi-1", profile=DeviceProfile(profiles=("pi5",), arch="aarch64", engines={}))]
    with pytest.raises(NoArtifactError, match="pi-1"):
        assign("r-1", plan(), devices, [offer()])
    parts, skipped = assign("r-1", plan(skip_missing=True), devices, [offer()])
    assert [part.device for part in parts] == ["gw-1"]
    assert [skip.device for skip in skipped] == ["pi-1"]
    with pytest.raises(NoDeviceError):
        assign("r-1", plan(skip_missing=True), devices[1:], [offer()])


@pytest.mark.parametrize(
    "stages",
    [
        (Stage(),),
        (Stage(percent=10, count=1),),
        (Stage(percent=50), Stage(percent=50)),
        (Stage(percent=50), Stage(percent=10)),
        (Stage(count=5), Stage(percent=100), Stage(count=5)),
    ],
)
def test_stages_that_contradict_each_other_are_refused(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(PlanError, match="stage"):
        check_plan(plan(stages=stages))
