"""What happens when signed metadata comes in: an authorisation, a rotation, a release?

The metadata is checked, then rows and files are written inside one another: rows in an open transaction, files, commit.
A crash between the last two leaves a release that devices can see and the database does not know; `restore` finds it at
the next start. An upload that is repeated changes nothing.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy.orm import Session

from fleet.control import Actor
from fleet.errors import IncompleteReleaseError, InvalidError
from fleet.services import Services
from fleet.store.access import AccessRepository
from fleet.store.releases import ReleaseRepository
from fleet.trust.acceptance import MODEL_PREFIX, Upload, artifact_of
from runtime.contract.artifact import EVIDENCE_NAME, MANIFEST_NAME, Evidence, Manifest, read_manifest, target_path
from runtime.contract.canonical import EVIDENCE_LIMIT, Received, read_json
from runtime.contract.errors import DigestError, MetadataError

RESTORED = "restored from the signed metadata"


class Entry(msgspec.Struct, frozen=True):
    """One artifact of a release: its manifest and, where there is one, its evidence, both as signed."""

    manifest: Received[Manifest]
    evidence: bytes | None


def authorize(services: Services, upload: Upload, actor: Actor) -> dict[str, int]:
    """Bring in root and targets; returns their versions. Raises as `trust.acceptance.check`, or InvalidError for other roles."""
    if not upload.metadata or not upload.metadata.keys() <= {"root", "targets"}:
        raise InvalidError("this takes metadata of root and targets; releases go to /api/v1/releases")
    with services.trust.accepting(upload) as acceptance, services.database.write() as session:
        after = acceptance.after
        versions = {
            role: held.signed.version for role, held in [("root", after.root), ("targets", after.targets)] if held is not None
        }
        _audit(services, session, actor, action="trust.update", object=services.config.fleet.name, detail=versions)
        acceptance.write()
    return versions


def publish(services: Services, model: str, version: str, upload: Upload, actor: Actor) -> None:
    """Bring in a release, or more targets of one. Nothing of it is visible, to devices or people, unless all of it is.

    Raises as `trust.acceptance.check`; IncompleteReleaseError when a blob was not uploaded; InvalidError when something
    belongs to another release; DigestError when an evidence speaks of another manifest.
    """
    role = _require_one_release(model, version, upload)
    with services.trust.accepting(upload) as acceptance:
        entries = _entries(model, version, upload.documents)
        _require_blobs(services, entries)
        with services.database.write() as session:
            role_version = acceptance.after.models[role].signed.version
            _add(services, session, model, version, entries, role_version=role_version, actor=actor.name)
            targets = sorted(entry.manifest.value.requires.profile for entry in entries)
            _audit(services, session, actor, action="release.publish", object=f"{model} {version}", detail={"targets": targets})
            acceptance.write()
    services.changes.publish("release", f"{model}/{version}")


def restore(services: Services) -> int:
    """Add the rows of releases that are signed and published but not in the database; returns how many artifacts that were.

    Call it at the start: it mends what a crash, or a database restored from an older copy, left behind.
    """
    added = 0
    for held in services.trust.state().models.values():
        releases: dict[tuple[str, str], list[str]] = {}
        for path in held.signed.targets:
            model, version, _, _ = artifact_of(path)
            releases.setdefault((model, version), []).append(path)
        for (model, version), paths in releases.items():
            with services.database.write() as session:
                known = {artifact.target for artifact in ReleaseRepository(session).artifacts(model, version)}
                lost = {path: services.trust.document(path) for path in paths if artifact_of(path)[2] not in known}
                if lost:
                    entries = _entries(model, version, lost)
                    _add(services, session, model, version, entries, role_version=held.signed.version, actor=RESTORED)
                    added += len(entries)
    return added


def _require_one_release(model: str, version: str, upload: Upload) -> str:
    role = MODEL_PREFIX + model
    if role not in upload.metadata or not upload.metadata.keys() <= {"targets", role}:
        raise InvalidError(f"a release of {model} brings metadata of {role}, and of targets when it is the model's first")
    if not upload.documents:
        raise InvalidError(f"a release of {model} brings at least one {MANIFEST_NAME}")
    for path in upload.documents:
        if artifact_of(path)[:2] != (model, version):
            raise InvalidError(f"{path} does not belong to {model} {version}")
    return role


def _entries(model: str, version: str, documents: Mapping[str, bytes]) -> list[Entry]:
    """The artifacts these documents make, by target; what they say of themselves must be where they lie."""
    entries = []
    for target in sorted({artifact_of(path)[2] for path in documents}):
        path = target_path(model, version, target)
        if path not in documents:
            raise IncompleteReleaseError(f"{path} was not uploaded")
        manifest = read_manifest(documents[path])
        value = manifest.value
        if (value.model, value.version, value.requires.profile) != (model, version, target):
            raise MetadataError(f"{path} holds the manifest of {value.model} {value.version} for {value.requires.profile}")
        evidence = documents.get(target_path(model, version, target, EVIDENCE_NAME))
        if evidence is not None and read_json(evidence, Evidence, EVIDENCE_LIMIT).value.manifest_sha256 != manifest.sha256:
            raise DigestError(f"the evidence for {target} speaks of another manifest")
        entries.append(Entry(manifest, evidence))
    return entries


def _require_blobs(services: Services, entries: list[Entry]) -> None:
    for entry in entries:
        for file in entry.manifest.value.files:
            held = services.blobs.size(file.sha256)
            if held is None:
                raise IncompleteReleaseError(
                    f"{file.name} of {entry.manifest.value.requires.profile} ({file.sha256[:12]}…) was not uploaded"
                )
            if held != file.size_bytes:
                raise DigestError(f"{file.name} has {held} bytes, its manifest says {file.size_bytes}")


def _add(
    services: Services, session: Session, model: str, version: str, entries: list[Entry], *, role_version: int, actor: str
) -> None:
    manifests = [(entry.manifest, entry.evidence) for entry in entries]
    ReleaseRepository(session).add(model, version, manifests, role_version=role_version, now_ms=services.now_ms(), actor=actor)


def _audit(services: Services, session: Session, actor: Actor, *, action: str, object: str, detail: Mapping[str, object]) -> None:
    AccessRepository(session).record(actor.name, actor.role, action, object, detail=dict(detail), now_ms=services.now_ms())
