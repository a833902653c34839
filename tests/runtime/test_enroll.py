"""Does a device join the fleet its token names, and no other?"""

import base64
import json
import stat

import pytest
from cryptography import x509

import runtime.enroll
from runtime.contract.errors import DigestError
from runtime.enroll import enroll, read_token
from runtime.errors import ConfigError, EnrolmentError
from runtime.identity import client_context, identity_dir, read_identity, read_root
from tests.support.pki import Authority


def test_a_device_gets_an_identity_of_its_own(tmp_path, door, store):
    identity = enroll(tmp_path, read_token(door.token()), "porch-1")
    assert identity == read_identity(tmp_path)
    assert (identity.device, identity.fleet, identity.url, identity.is_enrolled) == ("porch-1", "plant", door.url, True)
    assert identity.broker.port == door.broker["port"]
    assert read_root(tmp_path) == store.root
    certificate = x509.load_pem_x509_certificate((identity_dir(tmp_path) / "device.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=porch-1"
    client_context(tmp_path)
    for path in identity_dir(tmp_path).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PRIVATE" not in b"".join(str(request).encode() for request in door.requests)


def test_a_lost_answer_costs_nothing_the_key_is_shown_again(tmp_path, door, monkeypatch):
    ask = runtime.enroll._ask
    keys = []

    def lose_the_first_answer(token, ca_pem, device, csr_pem):
        keys.append(x509.load_pem_x509_csr(csr_pem.encode()).public_key())
        answer = ask(token, ca_pem, device, csr_pem)
        if len(keys) == 1:
            raise EnrolmentError("connection reset")
        return answer

    monkeypatch.setattr(runtime.enroll, "_ask", lose_the_first_answer)
    with pytest.raises(EnrolmentError, match="connection reset"):
        enroll(tmp_path, read_token(door.token()), "porch-1")
    enroll(tmp_path, read_token(door.token()), "porch-1")
    assert keys[0] == keys[1]
    assert not (identity_dir(tmp_path) / "pending.key").exists()


@pytest.mark.parametrize("field", ["ca_sha256", "root_sha256"])
def test_another_fleet_than_the_token_names_is_refused(tmp_path, door, field):
    with pytest.raises(DigestError):
        enroll(tmp_path, read_token(door.token(**{field: "0" * 64})), "porch-1")
    assert read_identity(tmp_path) is None


def test_a_door_with_another_authority_behind_the_right_digest_is_refused(tmp_path, door):
    """The CA sent is the pinned one, but the server's own certificate is not from it."""
    impostor = Authority(tmp_path / "impostor")
    door.authority, real = impostor, door.authority
    try:
        with pytest.raises(EnrolmentError, match="CERTIFICATE_VERIFY_FAILED"):
            enroll(tmp_path, read_token(door.token()), "porch-1")
    finally:
        door.authority = real


def test_a_used_token_is_refused_with_the_doors_words(tmp_path, door):
    with pytest.raises(EnrolmentError, match=r"403 enrolment\.refused unknown or used token"):
        enroll(tmp_path, read_token(door.token(secret="used")), "porch-1")


@pytest.mark.parametrize("device", ["", "Porch", "a" * 41, "a/b"])
def test_ids_outside_the_grammar_are_refused(tmp_path, door, device):
    with pytest.raises(EnrolmentError, match="not a device id"):
        enroll(tmp_path, read_token(door.token()), device)


def encoded(document):
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64 !",
        encoded({}),
        encoded({"url": "http://x", "ca_sha256": "0" * 64, "root_sha256": "0" * 64, "secret": "s"}),
        encoded({"url": "https://x", "ca_sha256": "0", "root_sha256": "0" * 64, "secret": "s"}),
    ],
)
def test_what_is_no_token_is_refused(text):
    with pytest.raises(EnrolmentError):
        read_token(text)


def test_a_door_out_of_reach_is_named(tmp_path, door):
    with pytest.raises(EnrolmentError, match="localhost:9"):
        enroll(tmp_path, read_token(door.token(url="https://localhost:9")), "porch-1")


def test_a_damaged_identity_is_an_error_not_a_new_device(tmp_path, door):
    enroll(tmp_path, read_token(door.token()), "porch-1")
    (identity_dir(tmp_path) / "identity.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match="enrol"):
        read_identity(tmp_path)
    (identity_dir(tmp_path) / "device.key").write_bytes(b"")
    with pytest.raises(ConfigError, match="enrol"):
        client_context(tmp_path)
