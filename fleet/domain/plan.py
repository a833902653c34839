"""Which devices does a rollout touch, in which stage, and which artifact does each get?

The plan names a release; the artifact is resolved per device from the profile it reported. A plan that cannot be carried
out is refused before anything moves.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fleet.domain.gates import GateLimits
from fleet.errors import NoArtifactError, NoDeviceError, PlanError
from runtime.contract.artifact import EngineRange, Fallback, Name, ReleaseVersion, Requirements
from runtime.contract.deployment import DeviceProfile

Label = Annotated[str, Meta(pattern=r"\A[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z")]
LISTED = 5
"""Devices named in a refusal; the count covers the rest."""


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a stage reaches: the first `percent` of all matched devices, or the first `count`, earlier stages included.

    soak_s: how long its gates must watch all of them after the last one reported. approval: a person says when to go on.
    """

    percent: Annotated[int, Meta(ge=1, le=100)] | None = None
    count: Annotated[int, Meta(ge=1)] | None = None
    soak_s: Annotated[int, Meta(ge=0, le=30 * 24 * 3600)] = 60
    approval: bool = False

    def reach(self, devices: int) -> int:
        """Devices covered out of so many; a percentage rounds up, so that a stage is never empty by rounding."""
        if self.count is not None:
            return min(self.count, devices)
        return -(-devices * (self.percent or 100) // 100)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rollout was asked to do. labels, profile, current_version: a device must match all that are given.

    concurrency: devices updating at the same time, None for all of a stage. skip_missing: leave out devices for which the
    release has no artifact, instead of refusing.
    """

    model: Name
    version: ReleaseVersion
    labels: dict[Label, str] = {}
    profile: Name | None = None
    current_version: ReleaseVersion | None = None
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=50)] = (Stage(percent=100),)
    gates: GateLimits = GateLimits()
    on_failure: Literal["rollback", "pause"] = "rollback"
    concurrency: Annotated[int, Meta(ge=1)] | None = None
    skip_missing: bool = False


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the planner sees it. serving: version and manifest digest of the model it reports now, "" for none."""

    device: str
    labels: dict[str, str]
    profile: DeviceProfile | None
    online: bool
    serving_version: str = ""
    serving_sha256: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact of the release."""

    target: str
    sha256: str
    requires: Requirements
    fallbacks: tuple[Fallback, ...] = ()


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One device's part: in which stage it gets which artifact, and what it serves until then."""

    device: str
    stage: int
    sha256: str
    previous_sha256: str


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A matched device the release has nothing for, and why."""

    device: str
    reason: str


def check_plan(plan: Plan) -> None:
    """Raise PlanError for stages that contradict each other or shrink."""
    reach: dict[str, int] = {}
    for number, stage in enumerate(plan.stages, start=1):
        kinds = {"percent": stage.percent, "count": stage.count}
        given = {kind: value for kind, value in kinds.items() if value is not None}
        if len(given) != 1:
            raise PlanError(f"stage {number}: give either percent or count")
        ((kind, value),) = given.items()
        if value <= reach.get(kind, 0):
            raise PlanError(f"stage {number}: {kind} {value} reaches no further than an earlier stage; stages are cumulative")
        reach[kind] = value


def assign(
    rollout: str, plan: Plan, devices: Sequence[Candidate], offers: Sequence[Offer]
) -> tuple[list[Assignment], list[Skipped]]:
    """Decide every device's part, of a plan that `check_plan` accepts. Raises NoDeviceError or NoArtifactError.

    Devices that are online come first: a canary nobody hears from would hold the rollout. Among equals a hash decides, so
    that it is not always the same device that goes first.
    """
    matched = [device for device in devices if matches(plan, device)]
    if not matched:
        raise NoDeviceError(f"no device matches {_describe(plan)}")
    chosen: list[tuple[Candidate, Offer]] = []
    skipped: list[Skipped] = []
    for device in matched:
        offer, reason = resolve(device.profile, offers)
        if offer is None:
            skipped.append(Skipped(device=device.device, reason=reason))
        else:
            chosen.append((device, offer))
    if skipped and not plan.skip_missing:
        listed = "; ".join(f"{skip.device}: {skip.reason}" for skip in skipped[:LISTED])
        rest = f" and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
        raise NoArtifactError(
            f"{plan.model} {plan.version} has no artifact for {len(skipped)} of {len(matched)} devices ({listed}{rest}); "
            "build it for their profile, or set skip_missing"
        )
    if not chosen:
        raise NoDeviceError(f"{plan.model} {plan.version} has no artifact for any of the {len(matched)} matched devices")
    chosen.sort(key=lambda pair: (not pair[0].online, _lot(rollout, pair[0].device)))
    return _staged(plan, chosen), skipped


def matches(plan: Plan, device: Candidate) -> bool:
    """Whether a device is meant by the plan's filter."""
    if any(device.labels.get(label) != value for label, value in plan.labels.items()):
        return False
    if plan.profile is not None and (device.profile is None or plan.profile not in device.profile.profiles):
        return False
    return plan.current_version is None or device.serving_version == plan.current_version


def resolve(profile: DeviceProfile | None, offers: Sequence[Offer]) -> tuple[Offer | None, str]:
    """The artifact for a device, by the order of the target profiles it reports; or None and the reason for people."""
    if profile is None:
        return None, "it has not reported its profile yet"
    by_target = {offer.target: offer for offer in offers}
    reasons = []
    for name in profile.profiles:
        if name not in by_target:
            continue
        lack = _lack(by_target[name], profile)
        if not lack:
            return by_target[name], ""
        reasons.append(f"{name}: {lack}")
    if reasons:
        return None, "; ".join(reasons)
    return (
        None,
        f"it fits {', '.join(profile.profiles) or 'no profile'}, the release has {', '.join(sorted(by_target)) or 'nothing'}",
    )


def _lack(offer: Offer, profile: DeviceProfile) -> str:
    """What the artifact demands and the device does not offer, "" for nothing. One of its engines is enough."""
    requires = offer.requires
    if requires.arch != profile.arch:
        return f"it is {profile.arch}, not {requires.arch}"
    first = Fallback(engine=requires.engine, engine_range=requires.engine_range)
    lacks = [_engine_lack(choice, profile) for choice in (first, *offer.fallbacks)]
    if all(lacks):
        return ", ".join(lacks)
    missing = set(requires.instruction_sets) - set(profile.instruction_sets)
    if missing:
        return f"its processor lacks {', '.join(sorted(missing))}"
    if profile.memory_bytes and requires.memory_bytes > profile.memory_bytes:
        return f"it has {profile.memory_bytes} bytes of memory, not {requires.memory_bytes}"
    return ""


def _engine_lack(choice: Fallback, profile: DeviceProfile) -> str:
    installed = profile.engines.get(choice.engine)
    if installed is None:
        return f"it lacks {choice.engine}"
    if not _within(installed, choice.engine_range):
        return f"its {choice.engine} is {installed}, not {choice.engine_range.at_least} up to {choice.engine_range.below}"
    return ""


def _within(version: str, span: EngineRange) -> bool:
    return _numbers(span.at_least) <= _numbers(version) < _numbers(span.below)


def _numbers(version: str) -> tuple[int, ...]:
    """The dotted integers a version starts with: 1.31.0rc1 compares as 1.31.0."""
    numbers = []
    for part in version.split("."):
        digits = part[: next((i for i, letter in enumerate(part) if not letter.isdigit()), len(part))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _staged(plan: Plan, chosen: Sequence[tuple[Candidate, Offer]]) -> list[Assignment]:
    """Cut the ordered devices into stages; those beyond the last stage are left alone."""
    assignments = []
    start = 0
    for number, stage in enumerate(plan.stages):
        end = max(start, stage.reach(len(chosen)))
        assignments += [
            Assignment(device=device.device, stage=number, sha256=offer.sha256, previous_sha256=device.serving_sha256)
            for device, offer in chosen[start:end]
        ]
        start = end
    return assignments


def _lot(rollout: str, device: str) -> bytes:
    return hashlib.sha256(f"{rollout}/{device}".encode()).digest()


def _describe(plan: Plan) -> str:
    parts: Mapping[str, str | None] = {**plan.labels, "profile": plan.profile, "current version": plan.current_version}
    return ", ".join(f"{name} = {value}" for name, value in parts.items() if value is not None) or "the fleet: it is empty"
