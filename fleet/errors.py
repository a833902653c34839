"""What can go wrong in the service, split by what the caller does next?

FleetError                      fleet.error
├── ConfigError                 config.invalid             fix fleet.toml, the environment or the flag
├── InvalidError                request.invalid            the request breaks a rule it could have known: fix it
│   ├── SigningRequestError     enrolment.bad_csr          the device's certificate request is not one we sign
│   ├── IncompleteReleaseError  release.incomplete         a document or blob the release names was not uploaded
│   └── PlanError               rollout.bad_plan           the plan can never run
│       ├── NoDeviceError       rollout.no_device          no device matches the target filter
│       └── NoArtifactError     rollout.no_artifact        a matched device has no artifact in the release
├── UnknownError                resource.unknown           there is no such thing; the code names its kind
│   ├── UnknownDeviceError      device.unknown
│   ├── UnknownReleaseError     release.unknown
│   ├── UnknownRolloutError     rollout.unknown
│   ├── UnknownAlertError       alert.unknown
│   ├── UnknownBlobError        blob.unknown
│   └── UnknownRoleError        trust.unknown_role         no metadata of that role yet
├── ConflictError               request.conflict           clashes with what is stored: look again, then decide
│   ├── RaceError               store.race                 someone else changed it in between: read again, retry
│   │   └── ReleaseRaceError    release.race               metadata is not the successor of the current: fetch, sign again
│   ├── ReleaseConflictError    release.conflict           other content under a name that is taken for ever
│   ├── DeviceExistsError       device.exists              the id is taken, for ever
│   ├── NotAuthorizedError      trust.not_authorized       no root names this service's keys yet: `toolchain keys authorize`
│   ├── IdempotencyError        request.idempotency_clash  the same Idempotency-Key with another request
│   ├── BusyModelError          rollout.model_busy         another rollout of this model touches one of these devices
│   └── StateError              rollout.bad_state          the rollout's state does not allow this
├── CredentialError             auth.unauthenticated       no token, or one that is unknown, expired or revoked
│   ├── EnrolmentError          enrolment.refused          the one-time secret is unknown, used or expired
│   └── NoCertificateError      auth.no_certificate        the device door wants a client certificate here
├── ForbiddenError              auth.forbidden             the role does not allow it
│   ├── StaleFormError          auth.stale_form            a dashboard form that was not made for this session
│   └── DeviceBarredError       device.barred              the certificate's device is not enrolled, or is revoked
├── BusyError                   service.busy               a limit is reached: come back later
├── StoreError                  store.error                the database cannot be read or written
│   └── StorageFullError        storage.full               no room for a blob; nothing half-written is left behind
├── SetupError                  setup.incomplete           the home is not initialised, or belongs to something else
└── ExternalError               external.failed            a program or peer the service needs did not do its part
    ├── BrokerError             broker.failed              mosquitto does not start, or refuses what we ask
    └── MissingProgramError     external.missing           install the program the text names (exit status 5)

Refusals of messages and signatures are `runtime.contract.errors`. Codes are stable, texts are for people. Which HTTP
status a class answers with stands in one place, `fleet.api.problems`.
"""

from typing import ClassVar


class FleetError(Exception):
    """Root of the service's errors; `code` travels in events, the audit log and HTTP bodies."""

    code: ClassVar[str] = "fleet.error"


class ConfigError(FleetError):
    code = "config.invalid"


class InvalidError(FleetError):
    code = "request.invalid"


class SigningRequestError(InvalidError):
    code = "enrolment.bad_csr"


class IncompleteReleaseError(InvalidError):
    code = "release.incomplete"


class PlanError(InvalidError):
    code = "rollout.bad_plan"


class NoDeviceError(PlanError):
    code = "rollout.no_device"


class NoArtifactError(PlanError):
    code = "rollout.no_artifact"


class UnknownError(FleetError):
    code = "resource.unknown"


class UnknownDeviceError(UnknownError):
    code = "device.unknown"


class UnknownReleaseError(UnknownError):
    code = "release.unknown"


class UnknownRolloutError(UnknownError):
    code = "rollout.unknown"


class UnknownAlertError(UnknownError):
    code = "alert.unknown"


class UnknownBlobError(UnknownError):
    code = "blob.unknown"


class UnknownRoleError(UnknownError):
    code = "trust.unknown_role"


class ConflictError(FleetError):
    code = "request.conflict"


class RaceError(ConflictError):
    code = "store.race"


class ReleaseRaceError(RaceError):
    code = "release.race"


class ReleaseConflictError(ConflictError):
    code = "release.conflict"


class DeviceExistsError(ConflictError):
    code = "device.exists"


class NotAuthorizedError(ConflictError):
    code = "trust.not_authorized"


class IdempotencyError(ConflictError):
    code = "request.idempotency_clash"


class BusyModelError(ConflictError):
    code = "rollout.model_busy"


class StateError(ConflictError):
    code = "rollout.bad_state"


class CredentialError(FleetError):
    code = "auth.unauthenticated"


class EnrolmentError(CredentialError):
    code = "enrolment.refused"


class NoCertificateError(CredentialError):
    code = "auth.no_certificate"


class ForbiddenError(FleetError):
    code = "auth.forbidden"


class StaleFormError(ForbiddenError):
    code = "auth.stale_form"


class DeviceBarredError(ForbiddenError):
    code = "device.barred"


class BusyError(FleetError):
    code = "service.busy"


class StoreError(FleetError):
    code = "store.error"


class StorageFullError(StoreError):
    code = "storage.full"


class SetupError(FleetError):
    code = "setup.incomplete"


class ExternalError(FleetError):
    code = "external.failed"


class BrokerError(ExternalError):
    code = "broker.failed"


class MissingProgramError(ExternalError):
    code = "external.missing"
