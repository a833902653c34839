"""What does an artifact directory hold, and is every byte of it the one its manifest names?

Nothing is signed, bundled, compared or measured before it went through here, so a file changed after the build is found
on the engineer's machine and not on a device.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from runtime.contract.artifact import (
    EVIDENCE_NAME,
    MANIFEST_NAME,
    Evidence,
    FileEntry,
    Manifest,
    read_manifest,
    target_path,
    version_key,
)
from runtime.contract.canonical import EVIDENCE_LIMIT, MANIFEST_LIMIT, Received, read_json
from runtime.contract.errors import DigestError, MalformedError
from runtime.contract.version import require_readable
from toolchain.errors import UsageError

CHUNK_BYTES = 1024 * 1024


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact directory whose files were all found to be what the manifest says."""

    path: Path
    manifest: Received[Manifest]
    evidence: Received[Evidence]

    @property
    def target(self) -> str:
        return self.manifest.value.requires.profile

    @property
    def documents(self) -> dict[str, bytes]:
        """What gets signed: the bytes of manifest and evidence by TUF target path."""
        value = self.manifest.value
        return {
            target_path(value.model, value.version, self.target, MANIFEST_NAME): self.manifest.raw,
            target_path(value.model, value.version, self.target, EVIDENCE_NAME): self.evidence.raw,
        }


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A release directory: one artifact per target, all of one model and version, sorted by target."""

    model: str
    version: str
    artifacts: tuple[Artifact, ...]


def blobs_of(artifacts: Iterable[Artifact]) -> dict[str, Path]:
    """Every payload file by digest; equal files of two targets are one blob."""
    return {entry.sha256: artifact.path / entry.name for artifact in artifacts for entry in artifact.manifest.value.files}


def read_artifact(path: Path) -> Artifact:
    """Read and check one artifact directory.

    Raises UsageError when it is none, and DigestError, MalformedError, TooLargeError or UnsupportedVersionError when it is
    damaged: a missing, shortened or changed file, or evidence about another manifest.
    """
    manifest = read_manifest(_document(path, MANIFEST_NAME, MANIFEST_LIMIT))
    evidence = read_json(_document(path, EVIDENCE_NAME, EVIDENCE_LIMIT), Evidence, EVIDENCE_LIMIT)
    require_readable("evidence", evidence.value.schema)
    if evidence.value.manifest_sha256 != manifest.sha256:
        raise DigestError(f"{path / EVIDENCE_NAME} speaks of another manifest than the one beside it; build again")
    for entry in manifest.value.files:
        _require_file(path / entry.name, entry)
    return Artifact(path=path, manifest=manifest, evidence=evidence)


def read_release(path: Path) -> Release:
    """Read and check every artifact below a release directory, or a single artifact directory. Raises as `read_artifact`."""
    artifacts = tuple(sorted((read_artifact(folder) for folder in _folders(path)), key=lambda artifact: artifact.target))
    names = {(artifact.manifest.value.model, artifact.manifest.value.version) for artifact in artifacts}
    if len(names) != 1:
        found = ", ".join(
            f"{model} {version}" for model, version in sorted(names, key=lambda name: (name[0], version_key(name[1])))
        )
        raise UsageError(f"{path} mixes releases ({found}); publish one directory OUT/MODEL/VERSION at a time")
    targets = [artifact.target for artifact in artifacts]
    if len(set(targets)) != len(targets):
        raise UsageError(f"{path} holds two artifacts for one target; each directory must be of another profile")
    ((model, version),) = names
    return Release(model=model, version=version, artifacts=artifacts)


def _folders(path: Path) -> list[Path]:
    """The artifact directories at `path`; every subdirectory of a release is one, so that none is left out unnoticed."""
    if (path / MANIFEST_NAME).is_file():
        return [path]
    folders = sorted(entry for entry in path.glob("[!.]*") if entry.is_dir())
    if not any((folder / MANIFEST_NAME).is_file() for folder in folders):
        raise UsageError(f"{path} holds no artifact; name the directory that `toolchain build` wrote: OUT/MODEL/VERSION")
    return folders


def _document(path: Path, name: str, limit: int) -> bytes:
    file = path / name
    try:
        with file.open("rb") as stream:
            return stream.read(limit + 1)  # one byte over is enough for the contract to refuse it
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{file} does not exist; build again, or name an artifact directory: OUT/MODEL/VERSION/TARGET"
        ) from error
    except OSError as error:
        raise MalformedError(f"{file} cannot be read: {error.strerror}") from error


def _require_file(file: Path, entry: FileEntry) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise DigestError(f"{file} is listed in the manifest and cannot be read: {error.strerror}") from error
    if size != entry.size_bytes or digest.hexdigest() != entry.sha256:
        raise DigestError(
            f"{file} is not the file the manifest names ({size} bytes, sha256 {digest.hexdigest()[:12]}…); build again"
        )
