"""Which facts does the service keep, and what makes each row unique?

Times are Unix milliseconds (`*_ms`) in UTC. Documents and messages are kept as the bytes that arrived; the columns beside
them are what queries need. The unique constraints are the idempotency rules of the system: a repeated window, event, job
or verdict finds its row and changes nothing.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Id = BigInteger().with_variant(Integer, "sqlite")
"""SQLite auto-increments INTEGER keys only; elsewhere telemetry outgrows 32 bits."""
Json = JSON().with_variant(JSONB(), "postgresql")
NAME = String(40)
"""A model, device or target id (`runtime.contract.artifact.Name`)."""
VERSION = String(64)
DIGEST = String(64)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Release(Base):
    """A published (model, version). role_version: of the model's signed metadata that first listed it."""

    __tablename__ = "release"
    __table_args__ = (UniqueConstraint("model", "version"),)
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(NAME)
    version: Mapped[str] = mapped_column(VERSION)
    role_version: Mapped[int] = mapped_column(BigInteger)
    published_ms: Mapped[int] = mapped_column(BigInteger)
    published_by: Mapped[str] = mapped_column(String(80))


class Artifact(Base):
    """A release compiled for one target. sha256: of the manifest; reference_sha256: blob of `reference.bin`, if it has one."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("model", "version", "target"),)
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"), index=True)
    model: Mapped[str] = mapped_column(NAME)
    version: Mapped[str] = mapped_column(VERSION)
    target: Mapped[str] = mapped_column(NAME)
    sha256: Mapped[str] = mapped_column(DIGEST, unique=True)
    manifest: Mapped[bytes] = mapped_column(LargeBinary)
    evidence: Mapped[bytes | None] = mapped_column(LargeBinary)
    engine: Mapped[str] = mapped_column(String(40))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    reference_sha256: Mapped[str | None] = mapped_column(DIGEST)


class Device(Base):
    """An enrolled device. A revoked one keeps its row, so that its id and history stay taken."""

    __tablename__ = "device"
    id: Mapped[str] = mapped_column(NAME, primary_key=True)
    labels: Mapped[dict[str, str]] = mapped_column(Json)
    enrolled_ms: Mapped[int] = mapped_column(BigInteger)
    certificate_pem: Mapped[str] = mapped_column(Text)
    certificate_serial: Mapped[str] = mapped_column(String(64), index=True)
    certificate_expires_ms: Mapped[int] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)


class Twin(Base):
    """What a device was told and what it last said; one row per device, made at enrolment.

    generation: rises whenever the wanted content changes or is re-issued. desired: the signed envelope of exactly that
    generation, None until the publisher has sealed it; it is stored before it is sent, so that one generation never has
    two bodies. published_generation: the newest one handed to the broker (says nothing about the device having it).
    """

    __tablename__ = "twin"
    device: Mapped[str] = mapped_column(ForeignKey("device.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    desired: Mapped[bytes | None] = mapped_column(LargeBinary)
    desired_expires_s: Mapped[int | None] = mapped_column(BigInteger)
    published_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    settings: Mapped[dict[str, int]] = mapped_column(Json, default=dict)
    reported: Mapped[bytes | None] = mapped_column(LargeBinary)
    reported_boot: Mapped[int | None] = mapped_column(BigInteger)
    reported_seq: Mapped[int | None] = mapped_column(BigInteger)
    reported_ms: Mapped[int | None] = mapped_column(BigInteger)
    applied_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    profile: Mapped[dict[str, Any] | None] = mapped_column(Json)
    versions: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    clock_synced: Mapped[bool] = mapped_column(default=False)
    online: Mapped[bool] = mapped_column(default=False)
    presence_ms: Mapped[int | None] = mapped_column(BigInteger)


class Wanted(Base):
    """Which artifact of a model a device should serve, and for which job."""

    __tablename__ = "wanted"
    device: Mapped[str] = mapped_column(ForeignKey("device.id"), primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    artifact_id: Mapped[int] = mapped_column(ForeignKey("artifact.id"))
    rollout: Mapped[str] = mapped_column(NAME, default="")
    attempt: Mapped[int] = mapped_column(Integer, default=0)


class Installed(Base):
    """One model as the device last reported it: what serves, and how its newest update stands."""

    __tablename__ = "installed"
    device: Mapped[str] = mapped_column(ForeignKey("device.id"), primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    version: Mapped[str | None] = mapped_column(VERSION, index=True)
    target: Mapped[str | None] = mapped_column(NAME)
    sha256: Mapped[str | None] = mapped_column(DIGEST)
    slot: Mapped[str | None] = mapped_column(String(1))
    wanted_sha256: Mapped[str | None] = mapped_column(DIGEST)
    rollout: Mapped[str] = mapped_column(NAME, default="")
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[str] = mapped_column(String(20))
    outcome: Mapped[str] = mapped_column(String(20))
    error_code: Mapped[str] = mapped_column(String(80), default="")
    error_detail: Mapped[str] = mapped_column(Text, default="")
    changed_ms: Mapped[int] = mapped_column(BigInteger)


class Rollout(Base):
    """A staged deployment of one release. plan: as asked for; progress: the domain's state, written by compare-and-set.

    revision: rises with every write, whoever writes. epoch: of the scheduler that wrote last; an older one is fenced off.
    """

    __tablename__ = "rollout"
    id: Mapped[str] = mapped_column(NAME, primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"), index=True)
    model: Mapped[str] = mapped_column(NAME)
    version: Mapped[str] = mapped_column(VERSION)
    plan: Mapped[dict[str, Any]] = mapped_column(Json)
    state: Mapped[str] = mapped_column(String(20), index=True)
    stage: Mapped[int] = mapped_column(Integer, default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(Json)
    reason: Mapped[str] = mapped_column(Text, default="")
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(String(80))
    finished_ms: Mapped[int | None] = mapped_column(BigInteger)
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    request_sha256: Mapped[str] = mapped_column(DIGEST, default="")


class Job(Base):
    """The update of one device within a rollout; with `attempt` the key that travels on the wire.

    previous_artifact_id: what to go back to; None when it had nothing.
    """

    __tablename__ = "job"
    __table_args__ = (UniqueConstraint("rollout", "device"), Index("ix_job_device_state", "device", "state"))
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollout.id"))
    device: Mapped[str] = mapped_column(ForeignKey("device.id"))
    attempt: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(Integer)
    stage: Mapped[int] = mapped_column(Integer)
    artifact_id: Mapped[int] = mapped_column(ForeignKey("artifact.id"))
    previous_artifact_id: Mapped[int | None] = mapped_column(ForeignKey("artifact.id"))
    state: Mapped[str] = mapped_column(String(20))
    error_code: Mapped[str] = mapped_column(String(80), default="")
    error_detail: Mapped[str] = mapped_column(Text, default="")
    dispatched_ms: Mapped[int | None] = mapped_column(BigInteger)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger)


class Verdict(Base):
    """What one gate said in one evaluation of a stage, with the numbers it rested on."""

    __tablename__ = "verdict"
    __table_args__ = (UniqueConstraint("rollout", "stage", "evaluation", "gate"),)
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollout.id"))
    stage: Mapped[int] = mapped_column(Integer)
    evaluation: Mapped[int] = mapped_column(Integer)
    gate: Mapped[str] = mapped_column(String(40))
    decision: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str] = mapped_column(Text)
    numbers: Mapped[dict[str, Any]] = mapped_column(Json)
    at_ms: Mapped[int] = mapped_column(BigInteger)


class Window(Base):
    """One telemetry window. raw: the message before compression. at_ms: its start, or its arrival when the clock was unsynced."""

    __tablename__ = "window"
    __table_args__ = (
        UniqueConstraint("device", "boot", "seq"),
        Index("ix_window_device_model_at", "device", "model", "at_ms"),
        Index("ix_window_model_received", "model", "received_ms"),
    )
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("device.id"))
    boot: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(NAME)
    version: Mapped[str] = mapped_column(VERSION)
    target: Mapped[str] = mapped_column(NAME)
    sha256: Mapped[str] = mapped_column(DIGEST)
    role: Mapped[str] = mapped_column(String(8))
    edges: Mapped[str] = mapped_column(DIGEST)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    duration_ms: Mapped[int] = mapped_column(BigInteger)
    clock_synced: Mapped[bool]
    received_ms: Mapped[int] = mapped_column(BigInteger)
    requests: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    dropped_rows: Mapped[int] = mapped_column(BigInteger)
    raw: Mapped[bytes] = mapped_column(LargeBinary)


class Event(Base):
    """A step or alarm of a device, or of the service about one. The service's own have no boot and seq, and are never repeated."""

    __tablename__ = "event"
    __table_args__ = (UniqueConstraint("device", "boot", "seq"), Index("ix_event_device_received", "device", "received_ms"))
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    source: Mapped[str] = mapped_column(String(8), default="device")
    device: Mapped[str | None] = mapped_column(NAME)
    boot: Mapped[int | None] = mapped_column(BigInteger)
    seq: Mapped[int | None] = mapped_column(BigInteger)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(80))
    code: Mapped[str] = mapped_column(String(80), default="")
    model: Mapped[str] = mapped_column(String(80), default="")
    version: Mapped[str] = mapped_column(VERSION, default="")
    rollout: Mapped[str] = mapped_column(String(80), default="", index=True)
    attempt: Mapped[int] = mapped_column(BigInteger, default=0)
    detail: Mapped[str] = mapped_column(Text, default="")


class Drift(Base):
    """The newest drift judgement of one model on one device. streams: ranked, most changed first, each with its hysteresis.

    state: "waiting", "clean" or "alarm"; last_window_id: the newest window in it, so that none is judged twice.
    """

    __tablename__ = "drift"
    device: Mapped[str] = mapped_column(ForeignKey("device.id"), primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    sha256: Mapped[str] = mapped_column(DIGEST)
    state: Mapped[str] = mapped_column(String(16))
    rows: Mapped[int] = mapped_column(BigInteger, default=0)
    last_window_id: Mapped[int] = mapped_column(BigInteger, default=0)
    streams: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)
    at_ms: Mapped[int] = mapped_column(BigInteger)


class Alert(Base):
    """Something an operator should look at. key: what it is about; at most one open alert per key."""

    __tablename__ = "alert"
    __table_args__ = (Index("ix_alert_key_closed", "key", "closed_ms"),)
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(40))
    severity: Mapped[str] = mapped_column(String(10))
    device: Mapped[str | None] = mapped_column(NAME)
    model: Mapped[str | None] = mapped_column(NAME)
    rollout: Mapped[str | None] = mapped_column(NAME)
    title: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(Json)
    opened_ms: Mapped[int] = mapped_column(BigInteger)
    closed_ms: Mapped[int | None] = mapped_column(BigInteger)


class Audit(Base):
    """Who changed what, when. Append-only: the database itself refuses to change or delete a row."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    actor: Mapped[str] = mapped_column(String(80))
    role: Mapped[str] = mapped_column(String(10))
    action: Mapped[str] = mapped_column(String(40))
    object: Mapped[str] = mapped_column(String(200))
    detail: Mapped[dict[str, Any]] = mapped_column(Json)


class Enrolment(Base):
    """A one-time right to enrol. device: the only id it is good for, None for any. The secret is stored hashed."""

    __tablename__ = "enrolment"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(DIGEST, unique=True)
    device: Mapped[str | None] = mapped_column(NAME)
    labels: Mapped[dict[str, str]] = mapped_column(Json)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(String(80))
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    used_ms: Mapped[int | None] = mapped_column(BigInteger)
    used_by: Mapped[str | None] = mapped_column(NAME)


class ApiToken(Base):
    """A person's or program's credential for the API; the token itself is stored hashed."""

    __tablename__ = "api_token"
    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    token_sha256: Mapped[str] = mapped_column(DIGEST, unique=True)
    role: Mapped[str] = mapped_column(String(10))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)


class Meta(Base):
    """Single facts by name: the fleet's id, the scheduler's epoch."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
