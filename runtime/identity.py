"""Who is this device, to which fleet does it belong, and whom does it believe?

`runtime enroll` writes the identity folder, identity.json last; everything else only reads it. The device key never
leaves the folder, and nothing here logs it.
"""

import ssl
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.contract.artifact import Sha256
from runtime.contract.canonical import sha256_hex
from runtime.errors import ConfigError

KEY_FILE = "device.key"
CERTIFICATE_FILE = "device.crt"
CA_FILE = "ca.pem"
ROOT_FILE = "root.json"
IDENTITY_FILE = "identity.json"


NameOrNone = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{0,40}\Z")]


class BrokerAddress(msgspec.Struct, frozen=True):
    host: str
    port: int


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Content of identity.json. url: the device door; root_sha256: the pinned release root.

    A device that only side-loads has a pinned root and no fleet: device, fleet and url are "" and broker is None.
    """

    device: NameOrNone = ""
    fleet: NameOrNone = ""
    url: str = ""
    root_sha256: Sha256
    broker: BrokerAddress | None = None

    @property
    def is_enrolled(self) -> bool:
        return self.broker is not None


def identity_dir(state_dir: Path) -> Path:
    return state_dir / "identity"


def read_identity(state_dir: Path) -> Identity | None:
    """The identity of this device, or None before enrolment. Raises ConfigError when the file is unreadable."""
    path = identity_dir(state_dir) / IDENTITY_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path}: {error}; enrol the device again") from error


def read_root(state_dir: Path) -> bytes:
    """The pinned release root's bytes. Raises ConfigError when there is none."""
    path = identity_dir(state_dir) / ROOT_FILE
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; enrol the device, or pin a root with `runtime install --root`") from error


def root_digest(root: bytes) -> str:
    return sha256_hex(root)


def client_context(state_dir: Path) -> ssl.SSLContext:
    """TLS to the fleet's door and broker: its CA only, this device's certificate, TLS 1.2 or newer."""
    place = identity_dir(state_dir)
    try:
        context = ssl.create_default_context(cafile=str(place / CA_FILE))
        context.load_cert_chain(place / CERTIFICATE_FILE, place / KEY_FILE)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{place}: {error}; enrol the device again") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
