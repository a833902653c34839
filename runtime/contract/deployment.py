"""What should a device run, and what does it say it runs?

`desired` is the whole wanted state, signed by the director; `reported` is the device's answer. Jobs exist only in the
fleet's database: on the wire there are these two documents, and the device converges on the newer one.
"""

import enum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.contract.artifact import ArtifactRef, Count, Name

SHARE_WHOLE = 10_000
"""A share of traffic is an integer out of this many, so that the wire carries no floats."""


class DeploymentState(enum.StrEnum):
    """Where an update stands on the device. IDLE: no update under way for this model."""

    IDLE = "idle"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    TESTING = "testing"
    SWITCHING = "switching"
    PROBATION = "probation"
    COMMITTING = "committing"
    ROLLING_BACK = "rolling_back"
    REPORTING = "reporting"


class Outcome(enum.StrEnum):
    """How the newest update of a model ended.

    SUCCEEDED: committed. REFUSED: ended before the switch, the old version never stopped serving.
    ROLLED_BACK: ended after the switch, the old version serves again. NONE: none has ended yet.
    """

    NONE = "none"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


Role = Literal["active", "shadow", "split"]
Slot = Literal["a", "b"]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet tunes on a device. Durations in seconds, integers."""

    window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    probation_s: Annotated[int, Meta(ge=0, le=86_400)] = 30


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One model a device should serve. share: part of traffic out of SHARE_WHOLE; not_before: Unix seconds, 0 = at once.

    kind: what sort of thing is deployed; a device refuses one it does not know and says so.
    """

    model: Name
    kind: str = "model"
    role: Role = "active"
    share: Annotated[int, Meta(ge=0, le=SHARE_WHOLE)] = SHARE_WHOLE
    artifact: ArtifactRef
    rollout: str = ""
    attempt: Count = 0
    not_before: Count = 0


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the retained `desired` topic. issued_at, expires: Unix seconds; expiry affects only starting an update."""

    device: Name
    generation: Annotated[int, Meta(ge=1)]
    issued_at: Count
    expires: Count
    settings: Settings = Settings()
    deployments: tuple[Deployment, ...] = ()


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Signed bytes: `signature` is Ed25519 over `payload` by the key `keyid`. Carries `desired` and `command`."""

    payload: bytes
    keyid: str
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class ReportedDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the device.

    artifact, slot: what serves now (None: nothing yet). The rest speaks of the newest update: what it wanted, for which
    job (rollout, attempt), where it stands and how it ended; error_code is the stable code of the failure, or "".
    A model may have one entry per role.
    """

    model: Name
    role: Role = "active"
    artifact: ArtifactRef | None = None
    slot: Slot | None = None
    wanted: ArtifactRef | None = None
    rollout: str = ""
    attempt: Count = 0
    state: DeploymentState = DeploymentState.IDLE
    outcome: Outcome = Outcome.NONE
    error_code: str = ""
    error_detail: Annotated[str, Meta(max_length=500)] = ""


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What the device is, as the planner needs it. profiles: target profiles it fits, best first; engines: name -> version."""

    profiles: tuple[Name, ...]
    arch: str
    engines: dict[str, str]
    instruction_sets: tuple[str, ...] = ()
    memory_bytes: Count = 0


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the retained `reported` topic, sent on every connect and on every change. (boot, seq) orders reports."""

    boot: Count
    seq: Count
    applied_generation: Count
    clock_synced: bool
    profile: DeviceProfile
    versions: dict[str, str]
    deployments: tuple[ReportedDeployment, ...] = ()
