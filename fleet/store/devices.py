"""Which devices are enrolled, and who may enrol?"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet.errors import DeviceExistsError, EnrolmentError, UnknownDeviceError
from fleet.store.tables import Device, Enrolment, Twin


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry keeps of a device's certificate. serial: hexadecimal."""

    pem: str
    serial: str
    expires_ms: int


class DeviceRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, device: str) -> Device | None:
        return self._session.get(Device, device)

    def get(self, device: str) -> Device:
        """Raises UnknownDeviceError."""
        found = self.find(device)
        if found is None:
            raise UnknownDeviceError(f"no device {device!r} is enrolled")
        return found

    def page(self, after: str, limit: int) -> Sequence[Device]:
        """Devices in the order of their ids, behind `after`."""
        return self._session.scalars(select(Device).where(Device.id > after).order_by(Device.id).limit(limit)).all()

    def enrol(self, device: str, labels: dict[str, str], certificate: Certificate, now_ms: int) -> Device:
        """Add a device with an empty twin, whose first desired state only carries settings. Raises DeviceExistsError."""
        if self.find(device) is not None:
            raise DeviceExistsError(f"the id {device!r} is taken, also after a revocation; choose another")
        row = Device(
            id=device,
            labels=labels,
            enrolled_ms=now_ms,
            certificate_pem=certificate.pem,
            certificate_serial=certificate.serial,
            certificate_expires_ms=certificate.expires_ms,
        )
        self._session.add(row)
        self._session.flush()
        self._session.add(Twin(device=device, generation=1))
        self._session.flush()
        return row

    def revoke(self, device: str, now_ms: int) -> Device:
        """Bar a device from now on; revoking twice keeps the first time. Raises UnknownDeviceError."""
        row = self.get(device)
        if row.revoked_ms is None:
            row.revoked_ms = now_ms
            self._session.flush()
        return row

    def add_enrolment(self, enrolment: Enrolment) -> Enrolment:
        self._session.add(enrolment)
        self._session.flush()
        return enrolment

    def redeem(self, secret_sha256: str, device: str, now_ms: int) -> Enrolment:
        """Use up a one-time right to enrol. Raises EnrolmentError; two callers can never both succeed."""
        found = self._session.scalar(select(Enrolment).where(Enrolment.secret_sha256 == secret_sha256))
        if found is None or found.used_ms is not None or found.expires_ms <= now_ms:
            raise EnrolmentError("the enrolment secret is unknown, used or expired; ask for another token")
        if found.device not in (None, device):
            raise EnrolmentError(f"this enrolment is for {found.device!r}, not {device!r}")
        taken = self._session.execute(
            update(Enrolment).where(Enrolment.id == found.id, Enrolment.used_ms.is_(None)).values(used_ms=now_ms, used_by=device)
        )
        if taken.rowcount != 1:  # type: ignore[attr-defined]  # CursorResult, which an update always yields
            raise EnrolmentError("the enrolment secret was used a moment ago; ask for another token")
        return found
