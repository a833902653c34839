"""Who is who on the wire: which certificates exist, what may each be used for, and who signs them?

One certificate authority per fleet signs three kinds of end certificate: the server's (device door and broker), the
service's own clients of the broker, and one per device. All keys are P-256: every TLS library, mosquitto's OpenSSL and
the secure elements found on edge boards take it; a device may bring an Ed25519 key instead. Private keys are written with
mode 0600 and never leave the folder; a device makes its own and sends only a signing request.

A device's common name is its id. The service's clients carry names with a dot, which the grammar of ids excludes, so
that no enrolment can ever yield them.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.errors import SetupError, SigningRequestError
from fleet.files import PUBLIC, SECRET, make_folder, write_durably
from runtime.contract.artifact import Name
from runtime.contract.canonical import sha256_hex

PUBLISHER, INGEST, RECONCILER = "publisher", "ingest", "reconciler"
"""The service's own clients of the broker: who sends desired states, who takes telemetry, who takes reports."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
AUTHORITY_YEARS = 20
LEAF_YEARS = 10
"""Longer than a board's life: a lapsed certificate would strand a device, and revocation is by the registry, at once.

The public web's 398 days protect from authorities one cannot ask; here authority, server and registry are one party.
"""
RENEW_BEFORE = timedelta(days=365)
CSR_LIMIT = 8 * 1024

DeviceKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_BACKDATE = timedelta(hours=1)
"""Edge clocks run late; a certificate must be valid on a device whose clock lags the service's a little."""


class KeyPair(msgspec.Struct, frozen=True):
    """Where a certificate and its private key lie."""

    certificate: Path
    key: Path


class DeviceCertificate(msgspec.Struct, frozen=True):
    """What signing a device's request yields. serial: hexadecimal."""

    pem: str
    serial: str
    expires_ms: int


class Authority:
    """The fleet's certificate authority, in `folder`: ca.crt, ca.key and the certificates the service itself uses."""

    def __init__(self, folder: Path) -> None:
        """Open what `create` made. Raises SetupError."""
        self.folder = folder
        self.certificate_path = folder / "ca.crt"
        try:
            self.certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
            key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except (OSError, ValueError) as error:
            raise SetupError(f"{folder}: no usable certificate authority ({error}). Run `fleet init`") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise SetupError(f"{folder}: ca.key is not the key of ca.crt")
        self._key = key

    @classmethod
    def create(cls, folder: Path, fleet: str, now: datetime) -> "Authority":
        """Make the authority of a new fleet. Raises SetupError when the folder already holds one: its devices would be lost."""
        if (folder / "ca.key").exists():
            raise SetupError(f"{folder / 'ca.key'} exists already; a second authority would lock out every enrolled device")
        make_folder(folder, 0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edgewright fleet {fleet}")])
        usage = _key_usage(sign_certificates=True)
        certificate = (
            _builder(name, name, now, now + timedelta(days=365 * AUTHORITY_YEARS))
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_durably(folder / "ca.crt", certificate.public_bytes(Encoding.PEM), PUBLIC)
        write_durably(folder / "ca.key", _private_pem(key), SECRET)
        return cls(folder)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def sha256(self) -> str:
        """Digest of the certificate's DER form: what an enrolment token pins."""
        return sha256_hex(self.certificate.public_bytes(Encoding.DER))

    def server(self, names: Sequence[str], now: datetime) -> KeyPair:
        """The server certificate for these host names and addresses and for loopback; issued anew when it does not fit or is near its end."""
        wanted = _alternative_names([*names, *LOOPBACK_NAMES])
        pair = KeyPair(self.folder / "server.crt", self.folder / "server.key")
        if not self._still_good(pair, now, wanted):
            extension = x509.SubjectAlternativeName(wanted)
            self._issue(pair, names[0] if names else LOOPBACK_NAMES[0], ExtendedKeyUsageOID.SERVER_AUTH, now, extension)
        return pair

    def service(self, role: str, now: datetime) -> KeyPair:
        """The certificate one of the service's own broker clients shows; see `service_name`."""
        name = service_name(role)
        pair = KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if not self._still_good(pair, now, None):
            self._issue(pair, name, ExtendedKeyUsageOID.CLIENT_AUTH, now)
        return pair

    def sign_device(self, csr_pem: bytes, device: str, now: datetime) -> DeviceCertificate:
        """Sign a device's request. Raises SigningRequestError unless it is a sound request by a sound key for exactly this id.

        Nothing but the public key is taken from the request: extensions it asks for are not granted.
        """
        key = _read_request(csr_pem, device)
        certificate = self._sign(key, device, ExtendedKeyUsageOID.CLIENT_AUTH, now)
        return DeviceCertificate(
            certificate.public_bytes(Encoding.PEM).decode(),
            f"{certificate.serial_number:x}",
            int(certificate.not_valid_after_utc.timestamp() * 1000),
        )

    def _issue(
        self,
        pair: KeyPair,
        name: str,
        purpose: x509.ObjectIdentifier,
        now: datetime,
        extension: x509.SubjectAlternativeName | None = None,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key.public_key(), name, purpose, now, extension)
        write_durably(pair.key, _private_pem(key), SECRET)
        write_durably(pair.certificate, certificate.public_bytes(Encoding.PEM), PUBLIC)

    def _sign(
        self,
        public_key: DeviceKey,
        name: str,
        purpose: x509.ObjectIdentifier,
        now: datetime,
        extension: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        end = min(now + timedelta(days=365 * LEAF_YEARS), self.certificate.not_valid_after_utc)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, self.certificate.subject, now, end)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer_key, critical=False)
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _still_good(self, pair: KeyPair, now: datetime, names: list[x509.GeneralName] | None) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
            key = load_pem_private_key(pair.key.read_bytes(), None)
        except (OSError, ValueError):
            return False  # absent, or torn by a crash between the two writes: issued again
        if key.public_key() != certificate.public_key() or certificate.issuer != self.certificate.subject:
            return False
        if now + RENEW_BEFORE >= certificate.not_valid_after_utc:
            return False
        if names is None:
            return True
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return set(held) == set(names)


def service_name(role: str) -> str:
    """The common name of the service's broker client for `role`: outside the grammar of device ids on purpose."""
    return f"service.{role}"


def common_name(certificate: dict[str, object] | None) -> str | None:
    """The one common name in what `ssl.SSLSocket.getpeercert` returns; None without a certificate or with any other number of names."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]  # type: ignore[attr-defined]
    return names[0] if len(names) == 1 else None


def _read_request(csr_pem: bytes, device: str) -> DeviceKey:
    try:
        msgspec.convert(device, Name)
    except msgspec.ValidationError as error:
        raise SigningRequestError(f"{device[:80]!r} is not a device id: use 1 to 40 of a-z, 0-9 and -") from error
    if len(csr_pem) > CSR_LIMIT:
        raise SigningRequestError(f"signing request of {len(csr_pem)} bytes is over the limit of {CSR_LIMIT}")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
        is_signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise SigningRequestError(f"not a signing request: {error}") from error
    if not is_signed:
        raise SigningRequestError("the signing request is not signed by the key it names")
    names = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device]:
        raise SigningRequestError(f"the signing request is for {names}, the enrolment for {device!r}")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise SigningRequestError("the device's key is neither P-256 nor Ed25519")


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATE)
        .not_valid_after(end.astimezone(UTC))
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
