"""What do the daemon and its helper say to each other?

One request as a JSON line on the helper's stdin, one `Reply` as a JSON line on its stdout. Bytes travel as base64.
"""

import enum

import msgspec

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeviceProfile
from runtime.update.memory_fit import Room

EXIT_DONE, EXIT_BUG, EXIT_FAILED, EXIT_REFUSED = 0, 1, 4, 6


class Task(enum.StrEnum):
    ACCEPT = "accept"
    FETCH = "fetch"
    VERIFY = "verify"
    TEST = "test"


class AcceptRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Is this signed message to be believed? kind: "desired" or "command"; held: payload of the desired state held, or b"".

    now_s: by which expiry is judged, of the message and of the release metadata; 0 for the system's clock.
    """

    state_dir: str
    kind: str
    envelope: bytes
    held: bytes = b""
    now_s: int = 0


class FetchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Bring an artifact's blobs onto the device. source: "" for the fleet's store, else the path of a bundle.

    reserve_bytes: what must stay free on the disk afterwards. bytes_per_s: bound on the network's use, 0 for none.
    disk_bytes: what blobs and slots may take together, 0 for no bound. keep: manifests, by sha256, of other running updates.
    rooms: bounds on the daemon's memory; what is larger than one of them is not worth its download.
    now_s: as of AcceptRequest; last_contact_s: when the fleet was last heard, by which a bundle's short-lived metadata is judged.
    """

    state_dir: str
    model: str
    artifact: ArtifactRef
    floor: str
    profile: DeviceProfile
    reserve_bytes: int
    bytes_per_s: int = 0
    source: str = ""
    disk_bytes: int = 0
    keep: tuple[str, ...] = ()
    rooms: tuple[Room, ...] = ()
    now_s: int = 0
    last_contact_s: int = 0


class VerifyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Are the files in a slot exactly the artifact's, and may this device run it?"""

    directory: str
    model: str
    artifact: ArtifactRef
    floor: str
    profile: DeviceProfile


class TestRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Does the model in a slot compute its golden outputs here? memory_bytes: cap on the process, 0 for none."""

    __test__ = False  # the name starts with "Test", but this is no test class

    directory: str
    memory_bytes: int = 0
    repeats: int = 30


Request = AcceptRequest | FetchRequest | VerifyRequest | TestRequest


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """code: "" when done, else the stable code of the refusal or failure. payload, is_new: of accept. figures: of fetch and test."""

    code: str = ""
    detail: str = ""
    payload: bytes = b""
    is_new: bool = False
    figures: dict[str, int] = {}
