"""What do the API's answers look like? The fields this client knows; the service may send more, and they are kept.

Times are Unix milliseconds, ratios 0..1. A test compares these with the service's own models, field by field.
"""

from typing import Any, TypedDict


class Artifact(TypedDict):
    """One target of a release; manifest and evidence are the signed documents, as JSON."""

    target: str
    sha256: str
    engine: str
    size_bytes: int
    manifest: dict[str, Any]
    evidence: dict[str, Any] | None


class ReleaseSummary(TypedDict):
    model: str
    version: str
    role_version: int
    published_ms: int
    published_by: str


class Release(ReleaseSummary):
    artifacts: list[Artifact]


class Installed(TypedDict):
    """One model on a device, as its last report has it."""

    model: str
    version: str | None
    target: str | None
    sha256: str | None
    slot: str | None
    state: str
    outcome: str
    rollout: str
    attempt: int
    error_code: str
    error_detail: str


class Wanted(TypedDict):
    model: str
    version: str
    target: str
    sha256: str
    rollout: str
    attempt: int


class DeviceHealth(TypedDict):
    """level: ok, attention, offline or revoked; reasons: for people, worst first."""

    level: str
    reasons: list[str]


class Device(TypedDict):
    id: str
    health: DeviceHealth
    labels: dict[str, str]
    online: bool
    revoked_ms: int | None
    enrolled_ms: int
    reported_ms: int | None
    generation: int
    applied_generation: int
    clock_synced: bool
    profile: dict[str, Any] | None
    versions: dict[str, str]
    models: list[Installed]
    wanted: list[Wanted]


class Job(TypedDict):
    """One device's part in a rollout."""

    device: str
    stage: int
    attempt: int
    state: str
    error_code: str
    error_detail: str
    dispatched_ms: int | None
    finished_ms: int | None


class Verdict(TypedDict):
    stage: int
    evaluation: int
    gate: str
    decision: str
    reason: str
    numbers: dict[str, Any]
    at_ms: int


class RolloutSummary(TypedDict):
    id: str
    model: str
    version: str
    state: str
    stage: int
    stages: int
    reason: str
    created_ms: int
    created_by: str
    finished_ms: int | None


class Rollout(RolloutSummary):
    """verdicts: of the newest evaluation."""

    plan: dict[str, Any]
    entered_ms: int
    revision: int
    jobs: list[Job]
    verdicts: list[Verdict]


class Window(TypedDict):
    id: int
    boot: int
    seq: int
    model: str
    version: str
    target: str
    role: str
    edges: str
    at_ms: int
    duration_ms: int
    clock_synced: bool
    received_ms: int
    requests: int
    errors: int
    rows: int
    dropped_rows: int


class Event(TypedDict):
    id: int
    source: str
    device: str | None
    at_ms: int
    received_ms: int
    kind: str
    code: str
    model: str
    version: str
    rollout: str
    attempt: int
    detail: str


class ModelDrift(TypedDict):
    """The newest judgement of one model; streams: most changed first."""

    model: str
    sha256: str
    state: str
    rows: int
    streams: list[dict[str, Any]]
    at_ms: int


class Drift(TypedDict):
    device: str
    models: list[ModelDrift]


class Alert(TypedDict):
    id: int
    kind: str
    severity: str
    device: str | None
    model: str | None
    rollout: str | None
    title: str
    detail: dict[str, Any]
    opened_ms: int
    closed_ms: int | None


class AuditEntry(TypedDict):
    id: int
    at_ms: int
    actor: str
    role: str
    action: str
    object: str
    detail: dict[str, Any]


class Health(TypedDict):
    status: str
    fleet: str
    parts: dict[str, str]


class Token(TypedDict):
    name: str
    role: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class NewToken(TypedDict):
    """token: the secret itself, shown this once."""

    name: str
    role: str
    token: str
    expires_ms: int | None


class TrustUpdate(TypedDict):
    """authorized: whether the service may now sign what it has to."""

    versions: dict[str, int]
    authorized: bool


class Change(TypedDict):
    """One notice of the stream: what changed is read through the other calls."""

    kind: str
    id: str
