"""How does a release directory become a signed release that the fleet can roll out?

Read and check every file, fetch and verify what the fleet holds, add manifest and evidence of each target to the model's
role, upload the payload that is missing, then the signed metadata. Nothing is visible to a device before the last step.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile, Targets

from fleet.client import Client
from runtime.contract.artifact import EVIDENCE_NAME
from toolchain.errors import ConflictError, FleetError, KeysError, RaceError
from toolchain.package.fleet import reaching
from toolchain.package.keys import KeyFolder
from toolchain.package.read import Artifact, Release, blobs_of, read_release
from toolchain.package.sign import delegate_model, delegated_keyids, list_document, model_role, next_targets, seal
from toolchain.package.trusted import Current, TrustedMetadata, fetch_current

ATTEMPTS = 5
"""Each lost race means that another publisher won one; five in a row is no longer chance."""

Progress = Callable[[str], None]


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What was published. added: targets new to the fleet; present: targets it had already, unchanged.

    role_version: of the model's metadata afterwards; uploaded_bytes: payload that was sent.
    """

    model: str
    version: str
    added: tuple[str, ...]
    present: tuple[str, ...]
    role_version: int
    uploaded_bytes: int


def publish(client: Client, keys: KeyFolder, path: Path, now: datetime, say: Progress) -> Publication:
    """Sign and upload the release in `path` (OUT/MODEL/VERSION). Publishing the same again changes nothing.

    Raises RefusedError for a tampered artifact or metadata that does not verify, ConflictError when the fleet has other
    content under this model, version and target, FleetError otherwise.
    """
    release = read_release(path)
    say(f"{release.model} {release.version}: {len(release.artifacts)} artifact(s) read, every digest holds")
    publisher = _Publisher(client, keys, release, now)
    # Before any upload: a fleet we cannot verify, or that has other content under this name, gets nothing of ours.
    uploaded = _upload_blobs(client, publisher.missing(), say)
    for _ in range(ATTEMPTS):
        try:
            added, role_version = publisher.sign_and_send()
        except RaceError:
            say("another release was published in between: signing again on top of it")
            continue
        return Publication(
            model=release.model,
            version=release.version,
            added=added,
            present=tuple(artifact.target for artifact in release.artifacts if artifact.target not in added),
            role_version=role_version,
            uploaded_bytes=uploaded,
        )
    raise FleetError(f"{client.url}: {ATTEMPTS} times another publisher was faster; try again")


class _Publisher:
    """One release on its way to one fleet."""

    def __init__(self, client: Client, keys: KeyFolder, release: Release, now: datetime) -> None:
        self._client = client
        self._keys = keys
        self._trusted = TrustedMetadata(keys)
        self._release = release
        self._role = model_role(release.model)
        self._now = now

    def missing(self) -> list[Artifact]:
        """The artifacts the fleet does not list yet. Raises ConflictError when it lists another one in a place of ours."""
        current, _ = self._fetch()
        return [artifact for artifact in self._release.artifacts if _is_new(artifact, current.model_targets)]

    def sign_and_send(self) -> tuple[tuple[str, ...], int]:
        """One attempt. Returns the targets added and the version of the model's role; raises RaceError when it came too late."""
        current, targets = self._fetch()
        listed = current.model_targets
        added = [artifact for artifact in self._release.artifacts if _is_new(artifact, listed)]
        if not added and listed:
            return (), listed.version
        metadata: dict[str, bytes] = {}
        if not delegated_keyids(targets, self._release.model):
            targets = self._delegate(targets)
            metadata[Targets.type] = seal(targets, [self._keys.signer(Targets.type, current.root.roles[Targets.type].keyids)])
        following = next_targets(listed, self._now)
        documents = {name: raw for artifact in added for name, raw in artifact.documents.items()}
        for name, raw in documents.items():
            list_document(following, name, raw)
        signer = self._keys.signer(self._role, delegated_keyids(targets, self._release.model))
        metadata[self._role] = seal(following, [signer])
        self._send(metadata, documents)
        return tuple(artifact.target for artifact in added), following.version

    def _fetch(self) -> tuple[Current, Targets]:
        """What the fleet holds, verified, and its targets role. Raises KeysError while the fleet is not authorised."""
        current = fetch_current(self._client, self._trusted, self._release.model)
        if current.targets is None:
            raise KeysError(f"{self._client.url} is not authorised yet: toolchain keys authorize --to {self._client.url}")
        return current, current.targets

    def _delegate(self, targets: Targets) -> Targets:
        """A model's first release: targets metadata that delegates to the model's key, made here unless an attempt left it."""
        key = self._keys.find_or_create(self._role).public_key
        following = next_targets(targets, self._now)
        delegate_model(following, self._release.model, key)
        return following

    def _send(self, metadata: dict[str, bytes], documents: dict[str, bytes]) -> None:
        with reaching(self._client.url):
            self._client.create_release(self._release.model, self._release.version, metadata, documents)
        for name, raw in metadata.items():
            self._trusted.keep(name, raw)


def _is_new(artifact: Artifact, listed: Targets | None) -> bool:
    """Whether the fleet lacks this artifact. Raises ConflictError when it has another one under the same name.

    Evidence alone may differ: a rebuild measures anew, and what was signed first stays what devices and people see.
    """
    value = artifact.manifest.value
    for name, raw in artifact.documents.items():
        signed = listed.targets.get(name) if listed else None
        if signed is None:
            return True
        if signed != TargetFile.from_data(name, raw, ["sha256"]) and not name.endswith(f"/{EVIDENCE_NAME}"):
            raise ConflictError(
                f"{value.model} {value.version} for {artifact.target} is published with other content "
                f"(manifest {signed.hashes['sha256'][:12]}…, here {artifact.manifest.sha256[:12]}…); raise the version and build again"
            )
    return False


def _upload_blobs(client: Client, artifacts: list[Artifact], say: Progress) -> int:
    """Send the payload files the fleet lacks; returns their bytes."""
    sent = 0
    with reaching(client.url):
        for sha256, file in blobs_of(artifacts).items():
            if not client.has_blob(sha256):
                client.put_blob(sha256, file)
                sent += file.stat().st_size
                say(f"uploaded {file.parent.name}/{file.name} ({file.stat().st_size:,} bytes)")
    return sent
