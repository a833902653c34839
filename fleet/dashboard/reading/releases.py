"""What do the list of releases and the page of one release read?"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet.dashboard.reading.overview import RolloutFacts, read_rollouts
from fleet.store.releases import ReleaseRepository, manifest_of
from fleet.store.tables import Artifact, Device, Installed, Release, Rollout
from runtime.contract.artifact import Evidence, Manifest
from runtime.contract.canonical import EVIDENCE_LIMIT, read_json
from runtime.contract.errors import ContractError

LISTED = 200
DEVICES_LISTED = 200


@dataclass(frozen=True)
class ArtifactFacts:
    """manifest, evidence: decoded. evidence is None when it came without, or in a form this version cannot read."""

    artifact: Artifact
    manifest: Manifest
    evidence: Evidence | None
    devices: int


@dataclass(frozen=True)
class ReleaseListFacts:
    """artifacts: per release id. serving: devices per (model, version)."""

    releases: tuple[Release, ...]
    artifacts: dict[int, list[ArtifactFacts]]
    serving: dict[tuple[str, str], int]


@dataclass(frozen=True)
class ReleasePageFacts:
    """others: versions of the same model. devices: (id, target) of those that serve it now; serving counts them all."""

    release: Release
    artifacts: tuple[ArtifactFacts, ...]
    devices: tuple[Installed, ...]
    serving: int
    rollouts: tuple[RolloutFacts, ...]
    others: tuple[str, ...]


def read_releases(session: Session) -> ReleaseListFacts:
    releases = ReleaseRepository(session).page(None, LISTED)
    artifacts: dict[int, list[ArtifactFacts]] = {release.id: [] for release in releases}
    counts = _serving_by_digest(session)
    for row in session.scalars(select(Artifact).where(Artifact.release_id.in_(artifacts)).order_by(Artifact.target)):
        artifacts[row.release_id].append(artifact_facts(row, counts.get(row.sha256, 0)))
    serving: dict[tuple[str, str], int] = {}
    for release in releases:
        serving[(release.model, release.version)] = sum(one.devices for one in artifacts[release.id])
    return ReleaseListFacts(tuple(releases), artifacts, serving)


def read_release(session: Session, model: str, version: str) -> ReleasePageFacts:
    """Raises UnknownReleaseError."""
    repository = ReleaseRepository(session)
    release = repository.get(model, version)
    counts = _serving_by_digest(session)
    artifacts = tuple(artifact_facts(row, counts.get(row.sha256, 0)) for row in repository.artifacts(model, version))
    serving = [one.artifact.sha256 for one in artifacts]
    devices = (
        select(Installed)
        .where(Installed.model == model, Installed.sha256.in_(serving))
        .order_by(Installed.device)
        .limit(DEVICES_LISTED)
    )
    others = session.scalars(
        select(Release.version).where(Release.model == model, Release.id != release.id).order_by(Release.id.desc())
    )
    return ReleasePageFacts(
        release=release,
        artifacts=artifacts,
        devices=tuple(session.scalars(devices)),
        serving=sum(one.devices for one in artifacts),
        rollouts=tuple(read_rollouts(session, Rollout.release_id == release.id)),
        others=tuple(others),
    )


def artifact_facts(row: Artifact, devices: int) -> ArtifactFacts:
    evidence = None
    if row.evidence is not None:
        try:
            evidence = read_json(row.evidence, Evidence, EVIDENCE_LIMIT).value
        except ContractError:
            evidence = None  # shown as absent: the page must open for a release of a newer toolchain too
    return ArtifactFacts(row, manifest_of(row.manifest), evidence, devices)


def _serving_by_digest(session: Session) -> dict[str, int]:
    query = (
        select(Installed.sha256, func.count())
        .join(Device, Device.id == Installed.device)
        .where(Device.revoked_ms.is_(None), Installed.sha256.is_not(None))
        .group_by(Installed.sha256)
    )
    return {sha256: amount for sha256, amount in session.execute(query) if sha256 is not None}
