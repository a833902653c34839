"""Where do a lane's two versions lie on disk, and which one serves?

    blobs/sha256/HEX             content-addressed files, manifests among them
    blobs/sha256/HEX.part, .plan what has come of one, and how to go on; see `download.py`
    models/LANE/a, models/LANE/b one artifact each, hard links to blobs
    models/LANE/active -> a | b  the switch: one rename of this symlink

The lane of a model's active deployment bears the model's name; see `lanes.py`. A blob that only the blob folder links to
is in no slot, so its link count tells the garbage collector all it needs.
"""

import errno
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from runtime.contract.artifact import MANIFEST_NAME, ArtifactRef, Manifest, read_manifest
from runtime.contract.canonical import MANIFEST_LIMIT, Received
from runtime.contract.deployment import Slot
from runtime.contract.errors import ContractError, DigestError
from runtime.files import TEMPORARY_SUFFIX, make_directory, naming_a_full_disk, point_symlink, remove_durably, sync_directory
from runtime.update.lanes import in_order, parts_of

ACTIVE = "active"
PART_SUFFIX, PLAN_SUFFIX = ".part", ".plan"
SLOTS: tuple[Slot, Slot] = ("a", "b")
# A filesystem without hard links (FAT on a USB stick), or at their limit, gets a copy: more bytes, same content.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}


class Slots:
    """The artifacts on disk below one state directory."""

    def __init__(self, state_dir: Path) -> None:
        """Makes nothing: a look at a device changes nothing on it. Whoever brings artifacts calls `prepare` first."""
        self._models = state_dir / "models"
        self.blobs = state_dir / "blobs" / "sha256"

    def prepare(self) -> "Slots":
        """Make the folders that updates need."""
        make_directory(self._models)
        make_directory(self.blobs)
        return self

    def lanes(self) -> tuple[str, ...]:
        """Lanes with an active slot, those of active deployments first."""
        return tuple(in_order(link.parent.name for link in self._models.glob(f"*/{ACTIVE}") if link.is_symlink()))

    def models(self) -> tuple[str, ...]:
        """Models whose active deployment has an active slot."""
        return tuple(lane for lane in self.lanes() if parts_of(lane)[1] == "active")

    def directory(self, lane: str, slot: Slot) -> Path:
        return self._models / lane / slot

    def active(self, lane: str) -> Slot | None:
        link = self._models / lane / ACTIVE
        if not link.is_symlink():
            return None
        return "a" if str(link.readlink()) == "a" else "b"

    def inactive(self, lane: str) -> Slot:
        return "b" if self.active(lane) == "a" else "a"

    def activate(self, lane: str, slot: Slot | None) -> None:
        """Make a slot the one that serves after any restart; None: nothing of the lane serves any more. Durable, idempotent."""
        link = self._models / lane / ACTIVE
        if slot is None:
            remove_durably(link)
        elif self.active(lane) != slot:
            point_symlink(link, slot)
        else:
            sync_directory(link.parent)  # a move that failed half-way may be in the kernel alone

    def manifest(self, lane: str, slot: Slot) -> Received[Manifest]:
        """What a slot holds. Raises OSError when it is empty, ContractError when its manifest is unreadable."""
        with (self.directory(lane, slot) / MANIFEST_NAME).open("rb") as file:
            return read_manifest(file.read(MANIFEST_LIMIT + 1))

    def artifact(self, lane: str, slot: Slot | None) -> ArtifactRef | None:
        """Names the artifact in a slot; None when there is none that can be read."""
        if slot is None:
            return None
        try:
            received = self.manifest(lane, slot)
        except (OSError, ContractError):
            return None
        return ArtifactRef(version=received.value.version, target=received.value.requires.profile, sha256=received.sha256)

    def fill(self, lane: str, slot: Slot, manifest_sha256: str) -> None:
        """Build an artifact in an inactive slot from blobs, replacing what was there. Durable, idempotent.

        Raises DigestError when a blob is missing, DiskFullError, or what `read_manifest` raises.
        """
        place = self.directory(lane, slot)
        building = place.with_name(slot + TEMPORARY_SUFFIX)
        remove_durably(building)
        make_directory(building)
        manifest = read_manifest(self._blob(manifest_sha256).read_bytes()).value
        self._link(manifest_sha256, building / MANIFEST_NAME)
        for entry in manifest.files:
            self._link(entry.sha256, building / entry.name)
        sync_directory(building)
        remove_durably(place)
        building.rename(place)
        sync_directory(place.parent)

    def drop(self, lane: str, slot: Slot) -> None:
        """Empty a slot that does not serve."""
        remove_durably(self.directory(lane, slot))

    def remove(self, lane: str) -> None:
        """Take a lane off the device. The symlink goes first: what is half removed must not be served."""
        self.activate(lane, None)
        remove_durably(self._models / lane)

    def coming_bytes(self) -> int:
        """What has come so far of blobs that are not whole yet."""
        return sum(part.stat().st_size for part in self.blobs.glob(f"*{PART_SUFFIX}"))

    def collect_garbage(self, needed: Collection[str] = (), lanes: Collection[str] | None = None) -> int:
        """Remove blobs that no slot links to, and what interrupted work left. Returns the bytes freed.

        needed: digests that updates on their way will link to, whole or in part. lanes: those anybody knows of; a folder of
        another one without an active slot is a removal cut short, and goes. None: leave them all.
        """
        freed = 0
        for leftover in self._models.glob(f"*/*{TEMPORARY_SUFFIX}"):
            remove_durably(leftover)
        if lanes is not None:
            for place in [place for place in self._models.iterdir() if place.name not in lanes]:
                if not (place / ACTIVE).is_symlink():
                    remove_durably(place)
        for path in list(self.blobs.iterdir()):
            status = path.stat()
            if status.st_nlink == 1 and path.name.partition(".")[0] not in needed:
                freed += status.st_size
                path.unlink()
        sync_directory(self.blobs)
        return freed

    def _blob(self, sha256: str) -> Path:
        path = self.blobs / sha256
        if not path.is_file():
            raise DigestError(f"blob {sha256[:12]}… is not on this device")
        return path

    def _link(self, sha256: str, name: Path) -> None:
        with naming_a_full_disk(f"filling slot {name.parent.name}"):
            try:
                name.hardlink_to(self._blob(sha256))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(self._blob(sha256), name)
                with name.open("rb") as file:
                    os.fsync(file.fileno())
