"""What does the planner need to know of the fleet and of a release?"""

import msgspec
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fleet.domain.plan import Candidate, Offer
from fleet.store.releases import ReleaseRepository, manifest_of
from fleet.store.tables import Device, Installed, Twin
from runtime.contract.deployment import DeviceProfile


def candidates(session: Session, model: str) -> list[Candidate]:
    """Every device that is not revoked, with what it reports of the model."""
    rows = session.execute(
        select(Device, Twin, Installed)
        .join(Twin, Twin.device == Device.id)
        .outerjoin(Installed, and_(Installed.device == Device.id, Installed.model == model))
        .where(Device.revoked_ms.is_(None))
        .order_by(Device.id)
    ).all()
    return [
        Candidate(
            device=device.id,
            labels=device.labels,
            profile=None if twin.profile is None else msgspec.convert(twin.profile, DeviceProfile),
            online=twin.online,
            serving_version=(installed.version or "") if installed else "",
            serving_sha256=(installed.sha256 or "") if installed else "",
        )
        for device, twin, installed in rows
    ]


def offers(session: Session, model: str, version: str) -> list[Offer]:
    """What a release holds. Raises UnknownReleaseError."""
    releases = ReleaseRepository(session)
    releases.get(model, version)
    return [
        Offer(target=row.target, sha256=row.sha256, requires=manifest.requires, fallbacks=manifest.fallbacks)
        for row in releases.artifacts(model, version)
        for manifest in (manifest_of(row.manifest),)
    ]
