"""How does a new device join a fleet?

The token an operator hands over names the fleet's door, the digests of its CA and of the release root, and a one-time
secret. The key is made here and never leaves; the door sends back a certificate, and whatever it sends is held against the
token's digests. identity.json is written last: an enrolment cut short counts as none and is simply done again. The new
key is kept from before it is first shown: should the answer be lost, the same token and key get the same certificate.
"""

import base64
import binascii
import http.client
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runtime.contract.artifact import Name, Sha256
from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError
from runtime.errors import EnrolmentError
from runtime.files import make_directory, write_durably
from runtime.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    IDENTITY_FILE,
    KEY_FILE,
    ROOT_FILE,
    BrokerAddress,
    Identity,
    identity_dir,
)

PENDING_KEY_FILE = "pending.key"
TIMEOUT_S = 30.0
ANSWER_LIMIT = 256 * 1024
_ID = re.compile(r"[a-z0-9-]{1,40}")


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What the token says. url: the device door; ca_sha256: of the CA certificate in DER; secret: good once."""

    url: str
    ca_sha256: Sha256
    root_sha256: Sha256
    secret: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the door sends back."""

    fleet: Name
    device: Name
    certificate_pem: str
    ca_pem: str
    root_json_b64: str
    broker: BrokerAddress


def read_token(text: str) -> Token:
    """Decode a token. Raises EnrolmentError when it is not one."""
    try:
        padded = text.strip() + "=" * (-len(text.strip()) % 4)
        token = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=Token)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise EnrolmentError(f"this is not an enrolment token: {error}; make one with `fleet token enrol`") from error
    if urlsplit(token.url).scheme != "https":
        raise EnrolmentError(f"the token names {token.url!r}; a device door is an https address")
    return token


def enroll(state_dir: Path, token: Token, device: str) -> Identity:
    """Make a key, get it certified, and keep the identity. Replaces an identity that was there.

    Raises EnrolmentError when the fleet refuses or cannot be reached, DigestError when it is not the one the token names.
    """
    if not _ID.fullmatch(device):
        raise EnrolmentError(f"{device!r} is not a device id: use 1 to 40 of a-z, 0-9 and - (runtime enroll --device ID)")
    place = identity_dir(state_dir)
    make_directory(place, mode=0o700)
    key = _pending_key(place / PENDING_KEY_FILE)
    ca_pem = _pinned_ca(token)
    answer = _ask(token, ca_pem, device, _request(key, device))
    root = _checked_root(answer, token)
    identity = Identity(
        device=answer.device, fleet=answer.fleet, url=token.url, root_sha256=token.root_sha256, broker=answer.broker
    )
    for name, data in (
        (KEY_FILE, _pem(key)),
        (CERTIFICATE_FILE, answer.certificate_pem.encode()),
        (CA_FILE, ca_pem.encode()),
        (ROOT_FILE, root),
        (IDENTITY_FILE, msgspec.json.encode(identity)),
    ):
        write_durably(place / name, data, mode=0o600)
    (place / PENDING_KEY_FILE).unlink()
    return identity


def _pending_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The key of an enrolment under way: that of an earlier try whose answer never came, else a new one."""
    if file.exists():
        try:
            key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        except ValueError as error:
            raise EnrolmentError(f"{file} is not a private key: {error}; remove it and ask for a new token") from error
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
        raise EnrolmentError(f"{file} holds a key of another kind; remove it and ask for a new token")
    new = ec.generate_private_key(ec.SECP256R1())
    write_durably(file, _pem(new), mode=0o600)
    return new


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _pinned_ca(token: Token) -> str:
    """The fleet's CA, fetched without belief and then held against the token's digest."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # the digest below decides; nothing secret is sent on this connection
    pem = _exchange(token.url, unverified, "GET", "/ca.pem", b"").decode(errors="replace")
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.strip())
    except (ValueError, binascii.Error) as error:
        raise EnrolmentError(f"{token.url} does not send a CA certificate: {error}") from error
    if sha256_hex(der) != token.ca_sha256:
        raise DigestError(f"{token.url} has another CA than the token names: it is not your fleet, or the token is of another")
    return pem


def _ask(token: Token, ca_pem: str, device: str, csr_pem: str) -> Answer:
    body = msgspec.json.encode({"secret": token.secret, "device": device, "csr_pem": csr_pem})
    raw = _exchange(token.url, ssl.create_default_context(cadata=ca_pem), "POST", "/enroll", body)
    try:
        return msgspec.json.decode(raw, type=Answer)
    except msgspec.MsgspecError as error:
        raise EnrolmentError(f"{token.url} answers something else than a certificate: {error}") from error


def _checked_root(answer: Answer, token: Token) -> bytes:
    try:
        root = base64.b64decode(answer.root_json_b64, validate=True)
    except binascii.Error as error:
        raise EnrolmentError(f"the root in the answer is not base64: {error}") from error
    if sha256_hex(root) != token.root_sha256:
        raise DigestError("the release root in the answer is not the one the token names")
    return root


def _request(key: ec.EllipticCurvePrivateKey, device: str) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _exchange(url: str, context: ssl.SSLContext, method: str, path: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port or 443, timeout=TIMEOUT_S, context=context)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, parts.path.rstrip("/") + path, body or None, headers)
        response = connection.getresponse()
        data = response.read(ANSWER_LIMIT)
    except (OSError, http.client.HTTPException) as error:
        raise EnrolmentError(f"{url} cannot be reached: {error}") from error
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise EnrolmentError(f"{url} refuses: HTTP {response.status} {_problem(data)}")
    return data


def _problem(data: bytes) -> str:
    """The readable part of a problem document."""
    try:
        document = msgspec.json.decode(data, type=dict[str, object])
    except msgspec.MsgspecError:
        return data[:200].decode(errors="replace")
    return f"{document.get('code', '')} {document.get('detail', document.get('title', ''))}".strip()
