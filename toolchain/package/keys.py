"""Where do the engineer's signing keys live, and how are they made and read?

One folder holds one trust root: `ROLE.key` files (Ed25519, PKCS8 PEM, mode 0600, encrypted when a passphrase is set), the
seed `root.json` that a fleet is initialised with, and `trusted/`, the newest metadata this engineer has seen verified.
The folder never leaves the engineer's machine; what a fleet gets from it is public.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from toolchain.errors import KeysError
from toolchain.files import write_durably

SEED_NAME = "root.json"
TRUSTED_NAME = "trusted"
NEXT_SUFFIX = ".next.key"
"""A key of a rotation under way: it becomes ROLE.key once the fleet has accepted the metadata that names it."""

_ROLE = re.compile(r"[a-z0-9-]{1,50}")


class KeyFolder:
    """The keys below `path`. passphrase: encrypts new keys and opens encrypted ones; None writes them in the clear (0600)."""

    def __init__(self, path: Path, passphrase: str | None = None) -> None:
        self.path = path
        self._passphrase = passphrase.encode() if passphrase else None

    @property
    def seed(self) -> Path:
        return self.path / SEED_NAME

    @property
    def trusted(self) -> Path:
        return self.path / TRUSTED_NAME

    def roles(self) -> tuple[str, ...]:
        """Roles with a key here, sorted."""
        keys = (file.name for file in self.path.glob("*.key"))
        return tuple(sorted(name.removesuffix(".key") for name in keys if not name.endswith(NEXT_SUFFIX)))

    def find_or_create(self, role: str) -> CryptoSigner:
        """The key of a role, made when it has none. Keys are never overwritten."""
        return self._find_or_write(self._file(role))

    def find_or_create_next(self, role: str) -> CryptoSigner:
        """The key a rotation will bring in; one left over from an interrupted rotation is used, not replaced."""
        return self._find_or_write(self._next_file(role))

    def promote(self, role: str) -> None:
        """End a rotation: the next key replaces the old one, in one rename."""
        self._next_file(role).replace(self._file(role))

    def signer(self, role: str, keyids: Iterable[str]) -> CryptoSigner:
        """The key of `role` that is one of `keyids`, the ids its delegator trusts.

        A rotation interrupted after the fleet accepted it leaves the trusted key under its next name: it is found and
        promoted here. Raises KeysError when no file holds a trusted key.
        """
        trusted = tuple(keyids)
        for file in (self._file(role), self._next_file(role)):
            if file.exists() and (signer := self._read(file)).public_key.keyid in trusted:
                if file == self._next_file(role):
                    self.promote(role)
                return signer
        wanted = ", ".join(keyid[:12] for keyid in trusted)
        raise KeysError(f"{self.path} holds no key {wanted} for role {role!r}: use the key folder that signed last (--keys DIR)")

    def public_key(self, role: str) -> SSlibKey:
        return self._read(self._file(role)).public_key

    def _file(self, role: str) -> Path:
        if not _ROLE.fullmatch(role):
            raise KeysError(f"{role!r} is not the name of a role")
        return self.path / f"{role}.key"

    def _next_file(self, role: str) -> Path:
        return self._file(role).with_suffix(NEXT_SUFFIX)

    def _find_or_write(self, file: Path) -> CryptoSigner:
        if file.exists():
            return self._read(file)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        encryption: KeySerializationEncryption = BestAvailableEncryption(self._passphrase) if self._passphrase else NoEncryption()
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        write_durably(file, pem, mode=0o600)
        return self._read(file)

    def _read(self, file: Path) -> CryptoSigner:
        try:
            pem = file.read_bytes()
            key = load_pem_private_key(pem, self._passphrase if b"ENCRYPTED" in pem else None)
        except FileNotFoundError as error:
            raise KeysError(f"{file} does not exist; make the keys first: toolchain keys create") from error
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise KeysError(f"{file} cannot be read as a private key: {error}") from error
        except TypeError as error:
            raise KeysError(f"{file} is encrypted: set EDGEWRIGHT_KEY_PASSPHRASE") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeysError(f"{file} is not an Ed25519 key")
        if file.stat().st_mode & 0o077:
            raise KeysError(f"{file} can be read by others: chmod 600 {file}")
        return CryptoSigner(key)
