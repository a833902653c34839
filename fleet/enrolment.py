"""How does a device become one of the fleet's?

It shows a one-time secret and a signing request made with a key that never leaves it; it gets a certificate. The secret is
used up in the transaction that adds the device, so it lets in exactly one. The answer may be lost on the way: the same
device asking again, with the same secret and the same key, gets the certificate it was given.
"""

from datetime import UTC, datetime

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.api.auth import hash_token
from fleet.errors import EnrolmentError
from fleet.services import Services
from fleet.store.access import AccessRepository
from fleet.store.devices import Certificate, DeviceRepository
from fleet.store.tables import Device, Enrolment


def enrol(services: Services, secret: str, device: str, csr_pem: bytes) -> str:
    """The device's certificate, as PEM. Raises SigningRequestError, EnrolmentError or DeviceExistsError."""
    now_ms = services.now_ms()
    secret_sha256 = hash_token(secret)
    _require_known(services, secret_sha256)
    signed = services.authority.sign_device(csr_pem, device, datetime.fromtimestamp(now_ms / 1000, UTC))
    with services.database.write() as session:
        held = _given_before(session, secret_sha256, device)
        if held is not None and _same_key(held.certificate_pem, signed.pem):
            return held.certificate_pem
        devices = DeviceRepository(session)
        enrolment = devices.redeem(secret_sha256, device, now_ms)
        certificate = Certificate(pem=signed.pem, serial=signed.serial, expires_ms=signed.expires_ms)
        devices.enrol(device, dict(enrolment.labels), certificate, now_ms)
        detail = {"enrolment": enrolment.id, "serial": signed.serial, "labels": enrolment.labels}
        AccessRepository(session).record(device, "device", "device.enrol", device, detail=detail, now_ms=now_ms)
    services.changes.publish("device", device)
    return signed.pem


def _require_known(services: Services, secret_sha256: str) -> None:
    """Turn away guesses before they cost a signature or the database's write lock: anyone can reach this."""
    with services.database.read() as session:
        if session.scalar(select(Enrolment.id).where(Enrolment.secret_sha256 == secret_sha256)) is None:
            raise EnrolmentError("the enrolment secret is unknown; ask for another token")


def _given_before(session: Session, secret_sha256: str, device: str) -> Device | None:
    """The device this very secret let in, unless it was revoked since."""
    return session.scalar(
        select(Device)
        .join(Enrolment, Enrolment.used_by == Device.id)
        .where(Enrolment.secret_sha256 == secret_sha256, Device.id == device, Device.revoked_ms.is_(None))
    )


def _same_key(held_pem: str, new_pem: str) -> bool:
    held, new = (x509.load_pem_x509_certificate(pem.encode()).public_key() for pem in (held_pem, new_pem))
    return held == new
