"""Where does the release metadata lie, and how does it change so that no reader ever sees half a change?

Folder `tuf/`: metadata/{n}.root.json, {n}.targets.json, {n}.model-NAME.json, {n}.snapshot.json and timestamp.json;
targets/DIR/{sha256}.NAME. Numbered and digest-named files are never changed once a timestamp leads to them, so a change
is: documents, roles, root, snapshot, and last the timestamp, replaced in one rename. A reader or a crash in between finds
the old timestamp and everything it leads to; files of a change that did not finish are simply written again.

The one change no order makes invisible is a root that replaces the targets keys: a device that reads between the new
root and the new timestamp is refused, keeps what it has, and succeeds on its next try. Uploading again finishes a crash.
"""

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from fleet.errors import NotAuthorizedError, SetupError, UnknownRoleError
from fleet.files import make_folder, write_durably
from fleet.trust.acceptance import State, Upload, check, read_root, read_targets
from fleet.trust.keys import ServiceKeys
from runtime.contract.canonical import read_json
from runtime.contract.errors import ContractError
from runtime.contract.trust import DIRECTOR_LIMIT, DIRECTOR_TARGET, DirectorKeys

TIMESTAMP_LIFE = timedelta(days=1)
"""How long a stolen or frozen mirror can hide a new release from a device."""
SNAPSHOT_LIFE = timedelta(days=7)

_FILE = re.compile(r"metadata/(timestamp|[0-9]+\.[a-z0-9-]+)\.json|targets/([a-z0-9][a-z0-9.-]*/)*[0-9a-f]{64}\.[a-z]+\.json")

Clock = Callable[[], datetime]
S = TypeVar("S", Timestamp, Snapshot)


def utc_now() -> datetime:
    return datetime.now(UTC)


class TrustStore:
    """The signed releases as devices fetch them. Safe to use from several threads and processes: changes take a file lock."""

    def __init__(self, folder: Path, keys: ServiceKeys, now: Clock = utc_now) -> None:
        """Open what `create` made. Raises SetupError."""
        self.folder = folder
        self.keys = keys
        self._now = now
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        self._cached: tuple[object, State, bool] | None = None
        if not self._root_versions():
            raise SetupError(f"{folder} holds no trust root. Run `fleet init --root root.json`")

    @classmethod
    def create(cls, folder: Path, root: bytes, keys: ServiceKeys, now: Clock = utc_now) -> "TrustStore":
        """Start from the public root of the signing keys. Raises SetupError when one is there already, ContractError when it is not sound."""
        held = read_root(root)
        if list((folder / "metadata").glob("*.root.json")):
            raise SetupError(f"{folder} already has a trust root; a second one would part it from every enrolled device")
        make_folder(folder / "metadata")
        make_folder(folder / "targets")
        write_durably(folder / "metadata" / f"{held.signed.version}.root.json", root)
        return cls(folder, keys, now)

    # reading

    @property
    def pinned_root(self) -> bytes:
        """The root this fleet began with: what devices pin, and walk on from."""
        return (self._metadata / f"{self._root_versions()[0]}.root.json").read_bytes()

    def newest(self, role: str) -> bytes:
        """The current bytes of root, targets, model-NAME, snapshot or timestamp. Raises UnknownRoleError."""
        if role in ("snapshot", "timestamp"):
            return self._newest_online(role)
        state = self.state()
        held = {"root": state.root, "targets": state.targets, **state.models}.get(role)
        if held is None:
            raise UnknownRoleError(f"there is no metadata of {role} yet")
        return held.raw

    def _newest_online(self, role: str) -> bytes:
        """What a side-load bundle carries beside the offline roles; there is none before the first authorisation."""
        timestamp = self._timestamp()
        if timestamp is None:
            raise UnknownRoleError(f"there is no metadata of {role} yet")
        prefix = f"{timestamp.snapshot_meta.version}." if role == "snapshot" else ""
        return self.file(f"metadata/{prefix}{role}.json")

    def state(self) -> State:
        return self._load()[0]

    def document(self, path: str) -> bytes:
        """A listed document, by target path. Raises UnknownRoleError when nothing lists it."""
        file = self.state().listed().get(path)
        if file is None:
            raise UnknownRoleError(f"no release lists {path}")
        return self._document_path(path, file.hashes["sha256"]).read_bytes()

    def file(self, path: str) -> bytes:
        """A file as TUF clients ask for it, "metadata/…" or "targets/…". Raises UnknownRoleError; never leaves the folder."""
        if not _FILE.fullmatch(path):
            raise UnknownRoleError(f"{path[:200]!r} is not a file of a release store")
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError as error:
            raise UnknownRoleError(f"the release store has no {path}") from error

    def is_authorized(self) -> bool:
        """Whether the offline keys let this service act: root names its snapshot and timestamp keys, targets its director."""
        return self._load()[1]

    def seal(self, payload: bytes, limit: int) -> bytes:
        """The signed envelope of a desired state or command. Raises NotAuthorizedError before `toolchain keys authorize`."""
        if not self.is_authorized():
            raise NotAuthorizedError("no signed metadata names this service's keys yet; run `toolchain keys authorize --to URL`")
        return self.keys.seal(payload, limit)

    # changing

    @contextmanager
    def accepting(self, upload: Upload) -> Iterator["Acceptance"]:
        """Check an upload under the lock; nothing is written until `Acceptance.write`. Raises what `acceptance.check` does."""
        with self._lock():
            before = self.state()
            yield Acceptance(self, before, check(before, upload, self.keys, self._now()), upload)

    def refresh(self) -> bool:
        """Sign timestamp and snapshot anew if half their life is over. True when something was signed; call it every few minutes."""
        with self._lock():
            state = self.state()
            if state.targets is None:
                return False
            now = self._now()
            timestamp = _read(self._metadata / "timestamp.json", Timestamp)
            snapshot = self._snapshot(timestamp)
            is_snapshot_due = snapshot.expires - now < SNAPSHOT_LIFE / 2
            if not is_snapshot_due and timestamp.expires - now >= TIMESTAMP_LIFE / 2:
                return False
            if is_snapshot_due:
                self._sign_snapshot(state, timestamp, snapshot)
            else:
                self._sign_timestamp(state.root.signed, timestamp, timestamp.snapshot_meta)
            return True

    def write(self, before: State, after: State, upload: Upload) -> None:
        """Make `after` current; called under the lock, by `Acceptance`."""
        listed = after.listed()
        for path, document in upload.documents.items():
            where = self._document_path(path, listed[path].hashes["sha256"])
            make_folder(where.parent)
            write_durably(where, document)
        for role, held in [("targets", after.targets), *after.models.items()]:
            if held is not None and held is not before.models.get(role) and held is not before.targets:
                write_durably(self._metadata / f"{held.signed.version}.{role}.json", held.raw)
        if after.root is not before.root:
            write_durably(self._metadata / f"{after.root.signed.version}.root.json", after.root.raw)
        timestamp = self._timestamp()
        self._sign_snapshot(after, timestamp, self._snapshot(timestamp) if timestamp else None)
        self._cached = None

    def _sign_snapshot(self, state: State, timestamp: Timestamp | None, previous: Snapshot | None) -> None:
        roles = {"targets": state.targets, **state.models}
        meta = {f"{role}.json": _meta(held.signed.version, held.raw) for role, held in roles.items() if held is not None}
        version = previous.version + 1 if previous else 1
        raw = self._sign(Snapshot(version=version, expires=self._now() + SNAPSHOT_LIFE, meta=meta), "snapshot", state.root.signed)
        write_durably(self._metadata / f"{version}.snapshot.json", raw)
        self._sign_timestamp(state.root.signed, timestamp, _meta(version, raw))

    def _sign_timestamp(self, root: Root, previous: Timestamp | None, snapshot: MetaFile) -> None:
        version = previous.version + 1 if previous else 1
        signed = Timestamp(version=version, expires=self._now() + TIMESTAMP_LIFE, snapshot_meta=snapshot)
        write_durably(self._metadata / "timestamp.json", self._sign(signed, "timestamp", root))

    def _sign(self, signed: S, role: str, root: Root) -> bytes:
        signed.expires = signed.expires.replace(microsecond=0)
        metadata: Metadata[S] = Metadata(signed)
        metadata.sign(self.keys.signer(role, root))
        return metadata.to_bytes(JSONSerializer(compact=True))

    # files

    def _load(self) -> tuple[State, bool]:
        """The state the timestamp leads to, and whether it authorizes us; parsed again only when the timestamp was replaced."""
        key = self._cache_key()
        if self._cached is None or self._cached[0] != key:
            state = self._read_state()
            self._cached = (key, state, self._names_us(state))
        return self._cached[1], self._cached[2]

    def _cache_key(self) -> object:
        """Every change renames a file into the folder, the timestamp among them; both are looked at because clocks tick coarsely."""
        folder = self._metadata.stat()
        try:
            timestamp = (self._metadata / "timestamp.json").stat()
        except FileNotFoundError:
            return folder.st_mtime_ns
        return folder.st_mtime_ns, timestamp.st_mtime_ns, timestamp.st_ino

    def _read_state(self) -> State:
        root = read_root((self._metadata / f"{self._root_versions()[-1]}.root.json").read_bytes())
        timestamp = self._timestamp()
        if timestamp is None:
            return State(root)
        roles = {}
        for name, meta in self._snapshot(timestamp).meta.items():
            role = name.removesuffix(".json")
            roles[role] = read_targets(role, (self._metadata / f"{meta.version}.{name}").read_bytes())
        targets = roles.pop("targets")
        return State(root, targets, roles)

    def _names_us(self, state: State) -> bool:
        if state.targets is None or not self.keys.is_named(state.root.signed):
            return False
        digest = state.targets.signed.targets[DIRECTOR_TARGET].hashes["sha256"]
        try:
            raw = self._document_path(DIRECTOR_TARGET, digest).read_bytes()
            return self.keys.director_id in read_json(raw, DirectorKeys, DIRECTOR_LIMIT).value.keys
        except (OSError, ContractError):
            return False

    def _timestamp(self) -> Timestamp | None:
        path = self._metadata / "timestamp.json"
        return _read(path, Timestamp) if path.exists() else None

    def _snapshot(self, timestamp: Timestamp) -> Snapshot:
        return _read(self._metadata / f"{timestamp.snapshot_meta.version}.snapshot.json", Snapshot)

    def _root_versions(self) -> list[int]:
        return sorted(int(path.name.split(".")[0]) for path in self._metadata.glob("[0-9]*.root.json"))

    def _document_path(self, path: str, sha256: str) -> Path:
        where = PurePosixPath(path)
        return self._targets / where.parent / f"{sha256}.{where.name}"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also by a crash
            yield


class Acceptance:
    """An upload that passed every check. `before` and `after` are the states around it."""

    def __init__(self, store: TrustStore, before: State, after: State, upload: Upload) -> None:
        self.before = before
        self.after = after
        self._store = store
        self._upload = upload

    def write(self) -> None:
        """Make it current, durably. Raises OSError; then nothing a reader can reach has changed."""
        self._store.write(self.before, self.after, self._upload)


def _meta(version: int, raw: bytes) -> MetaFile:
    return MetaFile.from_data(version, raw, ["sha256"])


def _read(path: Path, kind: type[S]) -> S:
    try:
        metadata: Metadata[S] = Metadata.from_bytes(path.read_bytes())
    except (OSError, DeserializationError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise SetupError(f"{path} is {metadata.signed.type} metadata")
    return metadata.signed
