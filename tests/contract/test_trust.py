"""Is a signed message believed only when key, bytes, address, generation and time all fit?"""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.contract import trust
from runtime.contract.canonical import DESIRED_LIMIT, Received, write_message
from runtime.contract.deployment import Desired
from runtime.contract.errors import (
    DigestError,
    ExpiredError,
    MalformedError,
    RollbackError,
    SignatureError,
    TooLargeError,
    WrongDeviceError,
)
from tests.contract.samples import DESIRED, MANIFEST

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {trust.key_id(PUBLIC): PUBLIC}
PAYLOAD = write_message(DESIRED, DESIRED_LIMIT)
SEALED = trust.seal_envelope(PAYLOAD, trust.key_id(PUBLIC), KEY.sign, DESIRED_LIMIT)


def received(desired: Desired) -> Received[Desired]:
    return Received(write_message(desired, DESIRED_LIMIT), desired)


def test_a_sealed_envelope_opens_to_the_signed_bytes() -> None:
    opened = trust.open_envelope(SEALED, KEYS, Desired, DESIRED_LIMIT)
    assert opened.value == DESIRED
    assert opened.raw == PAYLOAD


def test_every_single_flipped_byte_is_refused() -> None:
    for index in range(len(SEALED)):
        flipped = bytearray(SEALED)
        flipped[index] ^= 0x01
        with pytest.raises((SignatureError, MalformedError)):
            trust.open_envelope(bytes(flipped), KEYS, Desired, DESIRED_LIMIT)


def test_unknown_and_mismatched_keys_are_refused() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for keys in ({}, {trust.key_id(other): other}, {trust.key_id(PUBLIC): other}, {trust.key_id(PUBLIC): b"short"}):
        with pytest.raises(SignatureError):
            trust.open_envelope(SEALED, keys, Desired, DESIRED_LIMIT)


def test_a_signed_message_over_the_limit_is_refused() -> None:
    payload = b"\0" * (DESIRED_LIMIT + 1)
    with pytest.raises(TooLargeError):
        trust.seal_envelope(payload + b"\0" * trust.ENVELOPE_OVERHEAD, "k", KEY.sign, DESIRED_LIMIT)


@pytest.mark.parametrize(
    ("name", "generation", "same_body", "expected"),
    [
        ("above", 4, False, True),
        ("equal and identical", 3, True, False),
        ("equal with another body", 3, False, RollbackError),
        ("below", 2, False, RollbackError),
    ],
)
def test_generations(name: str, generation: int, same_body: bool, expected: object) -> None:
    change = {} if same_body else {"issued_at": 1}
    new = received(msgspec.structs.replace(DESIRED, generation=generation, **change))
    if isinstance(expected, bool):
        assert trust.check_desired(new, "porch-1", received(DESIRED)) is expected
    else:
        with pytest.raises(expected):
            trust.check_desired(new, "porch-1", received(DESIRED))


def test_the_first_desired_state_is_news_and_another_devices_is_refused() -> None:
    assert trust.check_desired(received(DESIRED), "porch-1", None)
    with pytest.raises(WrongDeviceError):
        trust.check_desired(received(DESIRED), "porch-2", None)


@pytest.mark.parametrize(("now", "refused"), [(-1, False), (0, True), (1, True)])
def test_expiry_stops_the_start_of_an_update(now: int, refused: bool) -> None:
    if refused:
        with pytest.raises(ExpiredError):
            trust.check_startable(DESIRED, DESIRED.expires + now)
    else:
        trust.check_startable(DESIRED, DESIRED.expires + now)


@pytest.mark.parametrize(("floor", "refused"), [("0.9.9", False), ("1.0.0", False), ("1.0.1", True)])
def test_floor(floor: str, refused: bool) -> None:
    if refused:
        with pytest.raises(RollbackError):
            trust.check_floor(MANIFEST, floor)
    else:
        trust.check_floor(MANIFEST, floor)


def test_digest_and_length_are_both_checked() -> None:
    trust.require_digest("x", b"ab", "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603", 2)
    with pytest.raises(DigestError, match="3 bytes instead of 2"):
        trust.require_digest("x", b"abc", "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603", 2)
    with pytest.raises(DigestError, match="sha256"):
        trust.require_digest("x", b"ax", "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603", 2)
