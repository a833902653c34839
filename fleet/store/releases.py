"""Which releases were published, and what is in them?"""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.errors import ReleaseConflictError, UnknownReleaseError
from fleet.store.tables import Artifact, Release
from runtime.contract.artifact import REFERENCE_NAME, Manifest, read_manifest
from runtime.contract.canonical import Received


class ReleaseRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, model: str, version: str) -> Release | None:
        return self._session.scalar(select(Release).where(Release.model == model, Release.version == version))

    def get(self, model: str, version: str) -> Release:
        """Raises UnknownReleaseError."""
        found = self.find(model, version)
        if found is None:
            raise UnknownReleaseError(f"no release {model} {version} is published")
        return found

    def page(self, before: int | None, limit: int) -> Sequence[Release]:
        """Releases from the newest on, older than the one with id `before`."""
        statement = select(Release).order_by(Release.id.desc()).limit(limit)
        return self._session.scalars(statement if before is None else statement.where(Release.id < before)).all()

    def artifacts(self, model: str, version: str) -> Sequence[Artifact]:
        statement = select(Artifact).where(Artifact.model == model, Artifact.version == version)
        return self._session.scalars(statement.order_by(Artifact.target)).all()

    def by_digest(self, sha256: str) -> Artifact | None:
        """The artifact whose manifest has this digest."""
        return self._session.scalar(select(Artifact).where(Artifact.sha256 == sha256))

    def artifact(self, artifact_id: int) -> Artifact:
        found = self._session.get(Artifact, artifact_id)
        if found is None:
            raise UnknownReleaseError(f"no artifact has the id {artifact_id}")
        return found

    def add(
        self,
        model: str,
        version: str,
        manifests: Sequence[tuple[Received[Manifest], bytes | None]],
        *,
        role_version: int,
        now_ms: int,
        actor: str,
    ) -> Release:
        """Keep a release; manifests: each with its evidence. The same content twice changes nothing.

        An artifact for another target may join a release later. Raises ReleaseConflictError for other content under a
        target that is taken.
        """
        release = self.find(model, version)
        if release is None:
            release = Release(model=model, version=version, role_version=role_version, published_ms=now_ms, published_by=actor)
            self._session.add(release)
            self._session.flush()
        held = {artifact.target: artifact.sha256 for artifact in self.artifacts(model, version)}
        for manifest, evidence in manifests:
            target = manifest.value.requires.profile
            if held.get(target, manifest.sha256) != manifest.sha256:
                raise ReleaseConflictError(f"{model} {version} for {target} is published with other content; raise the version")
            if target not in held:
                self._session.add(_artifact(release, manifest, evidence))
        self._session.flush()
        return release


@lru_cache(maxsize=256)
def manifest_of(raw: bytes) -> Manifest:
    """A stored manifest, decoded; it was checked when it came in."""
    return read_manifest(raw).value


def _artifact(release: Release, manifest: Received[Manifest], evidence: bytes | None) -> Artifact:
    value = manifest.value
    reference = value.file(REFERENCE_NAME)
    return Artifact(
        release_id=release.id,
        model=release.model,
        version=release.version,
        target=value.requires.profile,
        sha256=manifest.sha256,
        manifest=manifest.raw,
        evidence=evidence,
        engine=value.requires.engine,
        size_bytes=sum(entry.size_bytes for entry in value.files),
        reference_sha256=reference.sha256 if reference else None,
    )
