"""Are these files, byte for byte, the artifact that was asked for, and may this device run it?

The artifact's name carries the sha256 of its manifest, the manifest that of every file: nothing here needs a signature,
because `fetch` let the name through only after the signed release metadata listed it.
"""

import hashlib
from pathlib import Path

from runtime.backends.fallback import choices, lack_of
from runtime.contract.artifact import MANIFEST_NAME, ArtifactRef, Manifest, read_manifest, version_key
from runtime.contract.canonical import MANIFEST_LIMIT, Received, sha256_hex
from runtime.contract.deployment import DeviceProfile
from runtime.contract.errors import DigestError, MetadataError, RollbackError
from runtime.errors import UnsuitableError


def verify_artifact(directory: Path, model: str, artifact: ArtifactRef) -> Received[Manifest]:
    """Check every byte of an artifact directory. Returns its manifest.

    Raises DigestError for a missing, altered or superfluous file, MetadataError for a manifest of another artifact,
    MalformedError and its kin for one that cannot be read.
    """
    received = read_manifest_file(directory, artifact.sha256)
    manifest = received.value
    if (manifest.model, manifest.version, manifest.requires.profile) != (model, artifact.version, artifact.target):
        raise MetadataError(f"the manifest is of {manifest.model} {manifest.version} for {manifest.requires.profile}")
    expected = {entry.name for entry in manifest.files} | {MANIFEST_NAME}
    if surplus := {path.name for path in directory.iterdir()} - expected:
        raise DigestError(f"{min(surplus)} is not in the manifest")
    for entry in manifest.files:
        check_file(directory / entry.name, entry.sha256, entry.size_bytes)
    return received


def read_manifest_file(directory: Path, sha256: str) -> Received[Manifest]:
    """Read and check the manifest alone. Raises DigestError, or what `read_manifest` raises."""
    try:
        with (directory / MANIFEST_NAME).open("rb") as file:
            raw = file.read(MANIFEST_LIMIT + 1)
    except OSError as error:
        raise DigestError(f"{MANIFEST_NAME} cannot be read: {error.strerror}") from error
    if (found := sha256_hex(raw)) != sha256:
        raise DigestError(f"{MANIFEST_NAME} has sha256 {found[:12]}… instead of {sha256[:12]}…")
    return read_manifest(raw)


def check_file(path: Path, sha256: str, size_bytes: int) -> None:
    """Raise DigestError unless the file has exactly this length and digest."""
    try:
        with path.open("rb") as file:
            if (size := path.stat().st_size) != size_bytes:
                raise DigestError(f"{path.name} has {size} bytes instead of {size_bytes}")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DigestError(f"{path.name} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise DigestError(f"{path.name} has sha256 {found[:12]}… instead of {sha256[:12]}…")


def require_suitable(manifest: Manifest, profile: DeviceProfile) -> None:
    """Raise UnsuitableError naming the first demand of the artifact that this device does not meet."""
    need = manifest.requires
    if need.arch != profile.arch:
        raise UnsuitableError(f"made for {need.arch}, this device is {profile.arch}")
    lacks = [lack_of(choice, profile.engines.get(choice.engine)) for choice in choices(manifest)]
    if all(lacks):
        installed = ", ".join(f"{name} {version}" for name, version in sorted(profile.engines.items())) or "none"
        raise UnsuitableError(f"no engine for it: {'; '.join(lacks)}; installed: {installed}")
    if missing := sorted(set(need.instruction_sets) - set(profile.instruction_sets)):
        raise UnsuitableError(f"needs the CPU's {missing[0]}")
    if need.memory_bytes > profile.memory_bytes:
        raise UnsuitableError(f"needs {need.memory_bytes} bytes of memory, this device has {profile.memory_bytes}")


def require_floor(manifest: Manifest, floor: str) -> None:
    """Raise RollbackError below the floor. The same rule as `contract.trust.check_floor`, which needs tuf to import."""
    if version_key(manifest.version) < version_key(floor):
        raise RollbackError(f"{manifest.model} {manifest.version} is below the signed floor {floor}")
