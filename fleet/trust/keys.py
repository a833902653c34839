"""Which keys does the service itself hold, and when may it use them?

Three online Ed25519 keys: snapshot and timestamp keep the release metadata fresh, director signs desired states and
commands. They are worth nothing until the offline root (snapshot, timestamp) and the offline targets role (director) name
them; until then nothing is signed with them at all. None of them can bring in a release.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Root

from fleet.errors import NotAuthorizedError, SetupError
from fleet.files import SECRET, make_folder, write_durably
from runtime.contract.trust import key_id, seal_envelope

ROLES = ("snapshot", "timestamp", "director")


class ServiceKeys:
    """The service's signing keys, in `folder`: snapshot.key, timestamp.key, director.key."""

    def __init__(self, folder: Path) -> None:
        """Open what `create` made. Raises SetupError."""
        self._keys = {role: _read(folder / f"{role}.key") for role in ROLES}

    @classmethod
    def create(cls, folder: Path) -> "ServiceKeys":
        """Make the keys of a new service. Raises SetupError when the folder holds some: a root may already name them."""
        make_folder(folder, 0o700)
        if any((folder / f"{role}.key").exists() for role in ROLES):
            raise SetupError(f"{folder} already holds service keys; new ones would need a new authorisation")
        for role in ROLES:
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_durably(folder / f"{role}.key", pem, SECRET)
        return cls(folder)

    def public(self) -> dict[str, str]:
        """The public keys by role, 32 raw bytes in hexadecimal: what `toolchain keys authorize` puts into root and director.json."""
        return {role: key.public_key().public_bytes_raw().hex() for role, key in self._keys.items()}

    def signer(self, role: str, root: Root) -> CryptoSigner:
        """Signs `role` (snapshot or timestamp) under the key id this root gives our key. Raises NotAuthorizedError.

        A role that wants more signatures than ours can never be met by the service alone, so it counts as not ours.
        """
        ours = self.public()[role]
        held = root.roles[role]
        for keyid in held.keyids:
            key = root.keys[keyid]
            if isinstance(key, SSlibKey) and key.keyval.get("public") == ours and held.threshold == 1:
                return CryptoSigner(self._keys[role], key)
        raise NotAuthorizedError(
            f"root version {root.version} does not let this service sign {role}; run `toolchain keys authorize --to URL`"
        )

    def is_named(self, root: Root) -> bool:
        """Whether this root lets the service sign what it has to."""
        try:
            self.signer("snapshot", root)
            self.signer("timestamp", root)
        except NotAuthorizedError:
            return False
        return True

    @property
    def director_id(self) -> str:
        return key_id(self._keys["director"].public_key().public_bytes_raw())

    def seal(self, payload: bytes, limit: int) -> bytes:
        """An envelope around the payload, signed by the director. Whether it may be used is `TrustStore.seal`'s to know."""
        return seal_envelope(payload, self.director_id, self._keys["director"].sign, limit)


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: no usable key ({error}). Run `fleet init`") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SetupError(f"{path} is not an Ed25519 key")
    return key
