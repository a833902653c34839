"""Why was a message, artifact or signature refused?

ContractError                    contract.error
├── MalformedError               contract.malformed            bytes that do not decode, or break a field's bounds
├── TooLargeError                contract.too_large            larger than the limit of its kind
├── UnsupportedVersionError      contract.unsupported_version  a schema this side does not know
├── TopicError                   contract.bad_topic            a topic or id outside the grammar
└── RefusedError                 trust.refused                 well-formed, but not to be believed
    ├── SignatureError           trust.bad_signature           wrong, missing or unknown-key signature
    ├── DigestError              trust.digest_mismatch         bytes differ from the digest or length signed for them
    ├── MetadataError            trust.bad_metadata            release metadata that TUF rejects
    ├── ExpiredError             trust.expired                 past its expiry
    ├── RollbackError            trust.rollback                older than what was already accepted, or below the floor
    ├── WrongDeviceError         trust.wrong_device            addressed to another device
    └── UnlistedError            trust.unlisted                no signed release lists it

The codes travel in telemetry and HTTP bodies: messages may change, codes may not.
"""

from typing import ClassVar


class ContractError(Exception):
    """Root of everything this package refuses; `code` is stable, the text is for people."""

    code: ClassVar[str] = "contract.error"


class MalformedError(ContractError):
    code = "contract.malformed"


class TooLargeError(ContractError):
    code = "contract.too_large"


class UnsupportedVersionError(ContractError):
    code = "contract.unsupported_version"


class TopicError(ContractError):
    code = "contract.bad_topic"


class RefusedError(ContractError):
    """Well-formed but not to be believed; the holder keeps what it already trusts."""

    code = "trust.refused"


class SignatureError(RefusedError):
    code = "trust.bad_signature"


class DigestError(RefusedError):
    code = "trust.digest_mismatch"


class MetadataError(RefusedError):
    code = "trust.bad_metadata"


class ExpiredError(RefusedError):
    code = "trust.expired"


class RollbackError(RefusedError):
    code = "trust.rollback"


class WrongDeviceError(RefusedError):
    code = "trust.wrong_device"


class UnlistedError(RefusedError):
    code = "trust.unlisted"
