"""What was each device told, and what did it last say?

The wanted content and its generation change together, in one place: `want`. The publisher seals each generation once,
stores the signed bytes, and only then sends them, so that one generation never has two bodies.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from fleet.domain.health import Condition
from fleet.errors import UnknownDeviceError
from fleet.store.tables import Artifact, Device, Drift, Installed, Twin, Wanted
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import Received
from runtime.contract.deployment import Deployment, DeploymentState, Outcome, Reported, ReportedDeployment

FAILED = frozenset({Outcome.REFUSED, Outcome.ROLLED_BACK})


class TwinRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, device: str) -> Twin:
        """Raises UnknownDeviceError."""
        twin = self._session.get(Twin, device)
        if twin is None:
            raise UnknownDeviceError(f"no device {device!r} is enrolled")
        return twin

    def want(self, device: str, model: str, artifact_id: int | None, rollout: str, attempt: int) -> int:
        """Set what a device should serve of a model; None wants nothing of it. Returns the generation that says so.

        The generation rises only when the content changes.
        """
        twin = self.get(device)
        held = self._session.get(Wanted, (device, model))
        if artifact_id is None:
            if held is None:
                return twin.generation
            self._session.delete(held)
        elif held is None:
            self._session.add(Wanted(device=device, model=model, artifact_id=artifact_id, rollout=rollout, attempt=attempt))
        elif (held.artifact_id, held.rollout, held.attempt) == (artifact_id, rollout, attempt):
            return twin.generation
        else:
            held.artifact_id, held.rollout, held.attempt = artifact_id, rollout, attempt
        return self._raise_generation(twin)

    def reissue(self, device: str) -> int:
        """Say the same again in a new generation, because the signed one is about to expire or the settings changed."""
        return self._raise_generation(self.get(device))

    def deployments(self, device: str) -> tuple[Deployment, ...]:
        """What the desired state should list, in the order of the models' names."""
        return self.deployments_of([device])[device]

    def deployments_of(self, devices: Sequence[str]) -> dict[str, tuple[Deployment, ...]]:
        """The same for many devices in one query; every one of them is in the answer."""
        rows = self._session.execute(
            select(Wanted, Artifact)
            .join(Artifact, Artifact.id == Wanted.artifact_id)
            .where(Wanted.device.in_(devices))
            .order_by(Wanted.device, Wanted.model)
        )
        found: dict[str, list[Deployment]] = {device: [] for device in devices}
        for wanted, artifact in rows:
            found[wanted.device].append(
                Deployment(
                    model=wanted.model,
                    artifact=ArtifactRef(version=artifact.version, target=artifact.target, sha256=artifact.sha256),
                    rollout=wanted.rollout,
                    attempt=wanted.attempt,
                )
            )
        return {device: tuple(deployments) for device, deployments in found.items()}

    def unpublished(self, limit: int = 1000, after: str = "") -> Sequence[Twin]:
        """Twins of unrevoked devices whose newest generation was not handed to the broker yet, by device, behind `after`."""
        return self._session.scalars(
            select(Twin)
            .join(Device, Device.id == Twin.device)
            .where(Twin.generation > Twin.published_generation, Device.revoked_ms.is_(None), Twin.device > after)
            .order_by(Twin.device)
            .limit(limit)
        ).all()

    def expiring(self, before_s: int, limit: int = 1000) -> Sequence[Twin]:
        """Twins of unrevoked devices whose signed desired state expires before this Unix time."""
        return self._session.scalars(
            select(Twin)
            .join(Device, Device.id == Twin.device)
            .where(Twin.desired_expires_s < before_s, Twin.desired.is_not(None), Device.revoked_ms.is_(None))
            .order_by(Twin.desired_expires_s)
            .limit(limit)
        ).all()

    def seal(self, device: str, generation: int, envelope: bytes, expires_s: int) -> bool:
        """Keep the signed bytes of a generation. False if it has bytes already, or is not the newest any more.

        This and `mark_published` write past the session: a twin read before shows the old values.
        """
        return self._changed(
            update(Twin)
            .where(Twin.device == device, Twin.generation == generation, Twin.desired.is_(None))
            .values(desired=envelope, desired_expires_s=expires_s)
        )

    def mark_published(self, device: str, generation: int) -> bool:
        """Note that a generation was handed to the broker; False if a newer one was noted before."""
        return self._changed(
            update(Twin)
            .where(Twin.device == device, Twin.published_generation < generation)
            .values(published_generation=generation)
        )

    def forget_published(self) -> None:
        """Take every desired state for unpublished: the broker may have lost its retained messages."""
        self._session.execute(update(Twin).values(published_generation=0))

    def save_reported(self, device: str, received: Received[Reported], now_ms: int) -> bool:
        """Keep a report unless it is older than the one held. Returns whether it was newer. Raises UnknownDeviceError."""
        twin, report = self.get(device), received.value
        if twin.reported_boot == report.boot and twin.reported_seq is not None and twin.reported_seq >= report.seq:
            return False
        twin.reported, twin.reported_boot, twin.reported_seq = received.raw, report.boot, report.seq
        twin.reported_ms = now_ms
        twin.applied_generation = report.applied_generation
        twin.profile = msgspec.to_builtins(report.profile)
        twin.versions = dict(report.versions)
        twin.clock_synced = report.clock_synced
        self._save_installed(device, report.deployments, now_ms)
        return True

    def save_presence(self, device: str, online: bool, now_ms: int) -> bool:
        """Note whether a device is connected; returns whether that is news. Raises UnknownDeviceError."""
        twin = self.get(device)
        is_news = twin.online != online
        twin.online, twin.presence_ms = online, now_ms
        self._session.flush()
        return is_news

    def installed(self, device: str) -> Sequence[Installed]:
        return self._session.scalars(select(Installed).where(Installed.device == device).order_by(Installed.model)).all()

    def _raise_generation(self, twin: Twin) -> int:
        twin.generation += 1
        twin.desired, twin.desired_expires_s = None, None
        self._session.flush()
        return twin.generation

    def _save_installed(self, device: str, reported: Sequence[ReportedDeployment], now_ms: int) -> None:
        """Jobs and gates look at what answers. A shadow or split is in the report as received, and in windows by role."""
        deployments = [deployment for deployment in reported if deployment.role == "active"]
        models = [deployment.model for deployment in deployments]
        self._session.execute(delete(Installed).where(Installed.device == device, Installed.model.not_in(models)))
        held = {row.model: row for row in self.installed(device)}
        for deployment in deployments:
            row = held.get(deployment.model) or Installed(device=device, model=deployment.model)
            fresh = _installed_values(deployment)
            if any(getattr(row, name) != value for name, value in fresh.items()):
                for name, value in {**fresh, "changed_ms": now_ms}.items():
                    setattr(row, name, value)
                self._session.add(row)
        self._session.flush()

    def _changed(self, statement: object) -> bool:
        # Left to itself SQLAlchemy compares each statement with every twin in memory: a batch of 500 became 20 times slower.
        options = {"synchronize_session": False}
        return bool(self._session.execute(statement, execution_options=options).rowcount)  # type: ignore[call-overload]


def condition_of(device: Device, twin: Twin, installed: Sequence[Installed], drift: Sequence[Drift]) -> Condition:
    """What the rows of one device say, for `fleet.domain.health`."""
    return Condition(
        revoked=device.revoked_ms is not None,
        online=twin.online,
        has_reported=twin.reported is not None,
        clock_synced=twin.clock_synced,
        failures={row.model: row.error_code or row.outcome for row in installed if row.outcome in FAILED},
        drifting=tuple(row.model for row in drift if row.state == "alarm"),
    )


def _installed_values(deployment: ReportedDeployment) -> dict[str, object]:
    serving, wanted = deployment.artifact, deployment.wanted
    return {
        "version": serving.version if serving else None,
        "target": serving.target if serving else None,
        "sha256": serving.sha256 if serving else None,
        "slot": deployment.slot,
        "wanted_sha256": wanted.sha256 if wanted else None,
        "rollout": deployment.rollout,
        "attempt": min(deployment.attempt, 2**31 - 1),
        "state": DeploymentState(deployment.state).value,
        "outcome": deployment.outcome.value,
        "error_code": deployment.error_code,
        "error_detail": deployment.error_detail,
    }
