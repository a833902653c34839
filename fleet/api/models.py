"""What do requests and answers look like? Times are Unix milliseconds, ratios 0..1."""

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from fleet.domain.health import judge_health
from fleet.domain.plan import Plan
from fleet.errors import PlanError
from fleet.store.access import Role
from fleet.store.drift import DriftRepository
from fleet.store.rollouts import plan_of, progress_of
from fleet.store.tables import Device, Job, Rollout, Verdict
from fleet.store.twins import TwinRepository, condition_of


class Request(BaseModel):
    """A body in which an unknown key is an error, not a wish that is quietly ignored."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """An answer, or a part of one, made from a row's columns of the same names."""

    model_config = ConfigDict(from_attributes=True)


class EnrolmentRequest(Request):
    device: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,40}$", description="the only id it is good for")
    labels: dict[str, str] = Field(default_factory=dict, max_length=50)
    ttl_s: int = Field(default=3600, ge=60, le=30 * 24 * 3600)


class EnrolmentAnswer(BaseModel):
    token: str
    expires_ms: int


class StageRequest(Request):
    percent: int | None = Field(default=None, ge=1, le=100)
    count: int | None = Field(default=None, ge=1)
    soak_s: int = Field(default=60, ge=0)
    approval: bool = False


class GatesRequest(Request):
    """What the rollout tolerates; what is left out has the default of `fleet.domain.gates.GateLimits`."""

    min_rows: int | None = Field(default=None, ge=0, description="rows a device needs on each side; 0 switches these gates off")
    max_failed_updates: int | None = Field(default=None, ge=0)
    max_error_ratio: float | None = Field(default=None, ge=0, le=1)
    max_latency_ratio: float | None = Field(default=None, ge=1)
    max_class_shift: float | None = Field(default=None, ge=0, le=1)
    max_confidence_shift: float | None = Field(default=None, ge=0, le=1)


class RolloutRequest(Request):
    """A staged deployment of one release; every stage reaches further than the one before."""

    model: str
    version: str
    labels: dict[str, str] = Field(default_factory=dict)
    profile: str | None = None
    current_version: str | None = None
    stages: list[StageRequest] = Field(default_factory=lambda: [StageRequest(percent=100)], min_length=1)
    gates: GatesRequest = Field(default_factory=GatesRequest)
    on_failure: str = "rollback"
    concurrency: int | None = Field(default=None, ge=1)
    skip_missing: bool = False

    def plan(self) -> Plan:
        """Raises PlanError for a bound the domain sets, naming the field."""
        try:
            return msgspec.convert(self.model_dump(exclude_none=True), Plan)
        except msgspec.ValidationError as error:
            raise PlanError(str(error)) from error


class TokenRequest(Request):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,79}$")
    role: Role
    ttl_s: int | None = Field(default=None, ge=60)


class TokenAnswer(BaseModel):
    name: str
    role: str
    token: str
    expires_ms: int | None


class TokenView(View):
    name: str
    role: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class InstalledView(View):
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


class WantedView(BaseModel):
    model: str
    version: str
    target: str
    sha256: str
    rollout: str
    attempt: int


class HealthView(View):
    level: str = Field(description="ok, attention, offline or revoked")
    reasons: list[str]


class DeviceView(BaseModel):
    id: str
    health: HealthView
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
    models: list[InstalledView]
    wanted: list[WantedView]


class JobView(View):
    device: str
    stage: int
    attempt: int
    state: str
    error_code: str
    error_detail: str
    dispatched_ms: int | None
    finished_ms: int | None


class VerdictView(View):
    stage: int
    evaluation: int
    gate: str
    decision: str
    reason: str
    numbers: dict[str, Any]
    at_ms: int


class RolloutSummary(BaseModel):
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


class RolloutView(RolloutSummary):
    plan: dict[str, Any]
    entered_ms: int
    revision: int
    jobs: list[JobView]
    verdicts: list[VerdictView] = Field(description="of the newest evaluation")


class WindowView(View):
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


class EventView(View):
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


class DriftView(View):
    model: str
    sha256: str
    state: str
    rows: int
    streams: list[dict[str, Any]] = Field(description="most changed first")
    at_ms: int


class DeviceDrift(BaseModel):
    device: str
    models: list[DriftView]


class AlertView(View):
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


class AuditView(View):
    id: int
    at_ms: int
    actor: str
    role: str
    action: str
    object: str
    detail: dict[str, Any]


def show_device(session: Session, device: Device) -> DeviceView:
    twins = TwinRepository(session)
    twin, installed = twins.get(device.id), twins.installed(device.id)
    condition = condition_of(device, twin, installed, DriftRepository(session).of_device(device.id))
    return DeviceView(
        id=device.id,
        health=HealthView.model_validate(judge_health(condition)),
        labels=device.labels,
        online=twin.online,
        revoked_ms=device.revoked_ms,
        enrolled_ms=device.enrolled_ms,
        reported_ms=twin.reported_ms,
        generation=twin.generation,
        applied_generation=twin.applied_generation,
        clock_synced=twin.clock_synced,
        profile=twin.profile,
        versions=twin.versions,
        models=[InstalledView.model_validate(row) for row in installed],
        wanted=[
            WantedView(
                model=wanted.model,
                version=wanted.artifact.version,
                target=wanted.artifact.target,
                sha256=wanted.artifact.sha256,
                rollout=wanted.rollout,
                attempt=wanted.attempt,
            )
            for wanted in twins.deployments(device.id)
        ],
    )


def show_summary(row: Rollout) -> RolloutSummary:
    return RolloutSummary(
        id=row.id,
        model=row.model,
        version=row.version,
        state=row.state,
        stage=row.stage,
        stages=len(plan_of(row).stages),
        reason=row.reason,
        created_ms=row.created_ms,
        created_by=row.created_by,
        finished_ms=row.finished_ms,
    )


def show_rollout(row: Rollout, jobs: Sequence[Job], verdicts: Sequence[Verdict]) -> RolloutView:
    """verdicts: newest first, of which the newest evaluation is shown."""
    progress = progress_of(row)
    return RolloutView(
        **show_summary(row).model_dump(),
        plan=row.plan,
        entered_ms=progress.entered_ms,
        revision=row.revision,
        jobs=[JobView.model_validate(job) for job in jobs],
        verdicts=[VerdictView.model_validate(verdict) for verdict in verdicts if verdict.evaluation == progress.evaluation],
    )
