"""What can go wrong in the service, split by what the caller does next?

FleetError                      fleet.error
├── ConfigError                 config.invalid             fix fleet.toml, the environment or the flag
├── InvalidError                request.invalid            the request breaks a rule it could have known: fix it
│   └── PlanError               rollout.bad_plan           the plan can never run
│       ├── NoDeviceError       rollout.no_device          no device matches the target filter
│       └── NoArtifactError     rollout.no_artifact        a matched device has no artifact in the release
├── UnknownError                resource.unknown           there is no such thing; the code names its kind
│   ├── UnknownDeviceError      device.unknown
│   ├── UnknownReleaseError     release.unknown
│   ├── UnknownRolloutError     rollout.unknown
│   └── UnknownAlertError       alert.unknown
├── ConflictError               request.conflict           clashes with what is stored: look again, then decide
│   ├── RaceError               store.race                 someone else changed it in between: read again, retry
│   ├── IdempotencyError        request.idempotency_clash  the same Idempotency-Key with another request
│   ├── BusyModelError          rollout.model_busy         another rollout of this model touches one of these devices
│   └── StateError              rollout.bad_state          the rollout's state does not allow this
├── CredentialError             auth.unauthenticated       no token, or one that is unknown, expired or revoked
├── ForbiddenError              auth.forbidden             the role does not allow it
├── StoreError                  store.error                the database cannot be read or written
├── SetupError                  setup.incomplete           the home is not initialised, or belongs to something else
└── ExternalError               external.failed            a program or peer the service needs did not do its part

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


class ConflictError(FleetError):
    code = "request.conflict"


class RaceError(ConflictError):
    code = "store.race"


class IdempotencyError(ConflictError):
    code = "request.idempotency_clash"


class BusyModelError(ConflictError):
    code = "rollout.model_busy"


class StateError(ConflictError):
    code = "rollout.bad_state"


class CredentialError(FleetError):
    code = "auth.unauthenticated"


class ForbiddenError(FleetError):
    code = "auth.forbidden"


class StoreError(FleetError):
    code = "store.error"


class SetupError(FleetError):
    code = "setup.incomplete"


class ExternalError(FleetError):
    code = "external.failed"
