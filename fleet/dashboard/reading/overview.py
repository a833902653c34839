"""What does the fleet overview read?

A page shows at most PAGE devices, so the cost of a view does not grow with the fleet; totals are counted by the database.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, String, and_, cast, exists, func, or_, select
from sqlalchemy.orm import Session

from fleet.dashboard.reading.windows import WindowFacts, newest_windows
from fleet.store.tables import Alert, Device, Drift, Installed, Job, Rollout, Twin

PAGE = 50
SPARK_WINDOWS = 40
ALERTS = 20
FAILED_OUTCOMES = ("refused", "rolled_back")


@dataclass(frozen=True)
class DeviceFacts:
    """A row of the device table. windows: the newest ones per model, oldest first."""

    device: Device
    twin: Twin | None
    installed: tuple[Installed, ...]
    drift: tuple[Drift, ...]
    windows: dict[str, list[WindowFacts]]


@dataclass(frozen=True)
class RolloutFacts:
    """jobs: devices per state of their job."""

    rollout: Rollout
    jobs: dict[str, int]


@dataclass(frozen=True)
class OverviewFacts:
    """counts: devices per filter name of FILTERS; matching: devices the filter and the search leave, before paging."""

    devices: tuple[DeviceFacts, ...]
    matching: int
    counts: dict[str, int]
    rollouts: tuple[RolloutFacts, ...]
    alerts: tuple[Alert, ...]
    open_alerts: int
    versions: tuple[tuple[str, str, int], ...]


def _some(table: type[Installed] | type[Drift], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(and_(table.device == Device.id, condition))


FILTERS: dict[str, ColumnElement[bool]] = {
    "online": exists().where(and_(Twin.device == Device.id, Twin.online.is_(True))),
    "offline": ~exists().where(and_(Twin.device == Device.id, Twin.online.is_(True))),
    "updating": _some(Installed, Installed.state != "idle"),
    "failed": _some(Installed, and_(Installed.state == "idle", Installed.outcome.in_(FAILED_OUTCOMES))),
    "drifting": _some(Drift, Drift.state == "alarm"),
}


def read_overview(session: Session, *, only: str, search: str, page: int) -> OverviewFacts:
    """only: a name of FILTERS or "" for all; search: part of an id or of a label; page: from 1."""
    known = Device.revoked_ms.is_(None)
    counts = {"": _count(session, known)} | {name: _count(session, known, rule) for name, rule in FILTERS.items()}
    wanted: list[ColumnElement[bool]] = [known]
    if only in FILTERS:
        wanted.append(FILTERS[only])
    if search:
        wanted.append(_matches(search))
    ids = session.scalars(select(Device).where(*wanted).order_by(Device.id).limit(PAGE).offset((page - 1) * PAGE)).all()
    versions = session.execute(
        select(Installed.model, Installed.version, func.count())
        .join(Device, Device.id == Installed.device)
        .where(known, Installed.version.is_not(None))
        .group_by(Installed.model, Installed.version)
    )
    return OverviewFacts(
        devices=tuple(_device_facts(session, ids)),
        matching=_count(session, *wanted),
        counts=counts,
        rollouts=tuple(read_rollouts(session, Rollout.finished_ms.is_(None))),
        alerts=tuple(
            session.scalars(select(Alert).where(Alert.closed_ms.is_(None)).order_by(Alert.opened_ms.desc()).limit(ALERTS))
        ),
        open_alerts=session.scalar(select(func.count()).select_from(Alert).where(Alert.closed_ms.is_(None))) or 0,
        versions=tuple((model, version, amount) for model, version, amount in versions if version is not None),
    )


def read_rollouts(session: Session, *conditions: ColumnElement[bool], limit: int = 50) -> list[RolloutFacts]:
    """The newest rollouts that meet the conditions, with their job counts."""
    query = select(Rollout).where(*conditions).order_by(Rollout.created_ms.desc()).limit(limit)
    rollouts = session.scalars(query).all()
    jobs: dict[str, dict[str, int]] = {rollout.id: {} for rollout in rollouts}
    grouped = select(Job.rollout, Job.state, func.count()).where(Job.rollout.in_(jobs)).group_by(Job.rollout, Job.state)
    for rollout, state, amount in session.execute(grouped):
        jobs[rollout][state] = amount
    return [RolloutFacts(rollout, jobs[rollout.id]) for rollout in rollouts]


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(Device).where(*conditions)) or 0


def _matches(search: str) -> ColumnElement[bool]:
    """Substring match with the pattern's own characters taken literally."""
    literal = search.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    pattern = f"%{literal}%"
    return or_(
        func.lower(Device.id).like(pattern, escape="\\"), func.lower(cast(Device.labels, String)).like(pattern, escape="\\")
    )


def _device_facts(session: Session, devices: Sequence[Device]) -> list[DeviceFacts]:
    ids = [device.id for device in devices]
    twins = {twin.device: twin for twin in session.scalars(select(Twin).where(Twin.device.in_(ids)))}
    installed: dict[str, list[Installed]] = {device: [] for device in ids}
    for row in session.scalars(select(Installed).where(Installed.device.in_(ids)).order_by(Installed.model)):
        installed[row.device].append(row)
    drift: dict[str, list[Drift]] = {device: [] for device in ids}
    for judged in session.scalars(select(Drift).where(Drift.device.in_(ids))):
        drift[judged.device].append(judged)
    return [
        DeviceFacts(
            device=device,
            twin=twins.get(device.id),
            installed=tuple(installed[device.id]),
            drift=tuple(drift[device.id]),
            windows={row.model: newest_windows(session, device.id, row.model, SPARK_WINDOWS) for row in installed[device.id]},
        )
        for device in devices
    ]
