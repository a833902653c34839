"""Which certificates does the fleet's authority give out, and what does it refuse to sign?"""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleet.errors import SetupError, SigningRequestError
from fleet.pki import CSR_LIMIT, RENEW_BEFORE, Authority, KeyPair, common_name
from fleet.trust.keys import ServiceKeys
from runtime.contract.canonical import sha256_hex
from tests.fleet.edge.peers import make_request

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "plant", NOW)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(pair: KeyPair) -> list[str]:
    extension = read(pair.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in extension]


def test_private_keys_are_for_the_service_alone(authority: Authority, tmp_path: Path) -> None:
    authority.server(["edge.example"], NOW)
    authority.service("ingest", NOW)
    ServiceKeys.create(tmp_path / "keys")
    keys = list(tmp_path.rglob("*.key"))
    assert len(keys) == 6
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_an_authority_is_made_once_and_opened_again(authority: Authority) -> None:
    with pytest.raises(SetupError, match="lock out every enrolled device"):
        Authority.create(authority.folder, "plant", NOW)
    assert Authority(authority.folder).sha256 == authority.sha256
    (authority.folder / "ca.key").unlink()
    with pytest.raises(SetupError, match="fleet init"):
        Authority(authority.folder)


def test_a_key_that_is_not_the_authoritys_is_noticed(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", "plant", NOW)
    (authority.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(SetupError, match="not the key"):
        Authority(authority.folder)


def test_the_server_certificate_names_what_it_serves(authority: Authority) -> None:
    pair = authority.server(["edge.example", "192.0.2.7"], NOW)
    assert names(pair) == ["edge.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"]
    purposes = read(pair.certificate).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_server_certificate_is_kept_while_it_fits(authority: Authority) -> None:
    first = read(authority.server(["one.example"], NOW).certificate)
    assert read(authority.server(["one.example"], NOW).certificate) == first
    assert read(authority.server(["two.example"], NOW).certificate) != first


@pytest.mark.parametrize(
    ("before_end", "is_kept"), [(timedelta(days=1), True), (timedelta(0), False), (timedelta(days=-1), False)]
)
def test_it_is_renewed_a_year_before_its_end(authority: Authority, before_end: timedelta, is_kept: bool) -> None:
    first = read(authority.server(["one.example"], NOW).certificate)
    later = first.not_valid_after_utc - RENEW_BEFORE - before_end
    assert (read(authority.server(["one.example"], later).certificate) == first) is is_kept


def test_a_pair_torn_by_a_crash_is_issued_again(authority: Authority) -> None:
    pair = authority.service("ingest", NOW)
    torn = read(pair.certificate)
    pair.key.write_bytes(authority.service("publisher", NOW).key.read_bytes())
    assert read(authority.service("ingest", NOW).certificate) != torn


def test_a_device_gets_what_a_device_may_have(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signed = authority.sign_device(make_request("cam-1", key), "cam-1", NOW)
    certificate = x509.load_pem_x509_certificate(signed.pem.encode())
    certificate.verify_directly_issued_by(authority.certificate)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=cam-1"
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert signed.serial == f"{certificate.serial_number:x}"
    assert signed.expires_ms == certificate.not_valid_after_utc.timestamp() * 1000
    assert certificate.not_valid_before_utc < NOW


def test_requests_that_are_not_signed(authority: Authority) -> None:
    good = make_request("cam-1", Ed25519PrivateKey.generate())
    flipped = x509.load_pem_x509_csr(good).public_bytes(Encoding.DER)[:-1] + b"\0"
    refused = {
        "another name": (good, "cam-2"),
        "a service's name": (make_request("service.ingest", Ed25519PrivateKey.generate()), "service.ingest"),
        "no id": (make_request("Cam 1", Ed25519PrivateKey.generate()), "Cam 1"),
        "another curve": (make_request("cam-1", ec.generate_private_key(ec.SECP384R1())), "cam-1"),
        "not a request": (b"-----BEGIN", "cam-1"),
        "DER": (flipped, "cam-1"),
        "too long": (good + bytes(CSR_LIMIT), "cam-1"),
    }
    for request, device in refused.values():
        with pytest.raises(SigningRequestError):
            authority.sign_device(request, device, NOW)
    assert authority.sign_device(good, "cam-1", NOW).pem


def test_a_request_signed_by_another_key_is_refused(authority: Authority) -> None:
    mine, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    raw = x509.load_pem_x509_csr(make_request("cam-1", mine)).public_bytes(Encoding.DER)
    forged = raw.replace(mine.public_key().public_bytes_raw(), other.public_key().public_bytes_raw())
    pem = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM)
    with pytest.raises(SigningRequestError, match="not signed by the key"):
        authority.sign_device(pem, "cam-1", NOW)


def test_the_pinned_digest_is_that_of_the_der_form(authority: Authority) -> None:
    der = authority.certificate.public_bytes(Encoding.DER)
    assert authority.sha256 == sha256_hex(der)


def test_a_certificate_speaks_for_one_name() -> None:
    one = {"subject": ((("commonName", "cam-1"),),)}
    assert common_name(one) == "cam-1"
    assert common_name({"subject": one["subject"] + one["subject"]}) is None
    assert common_name({}) is None
    assert common_name(None) is None


def test_service_keys_are_made_once(tmp_path: Path) -> None:
    keys = ServiceKeys.create(tmp_path / "keys")
    assert ServiceKeys(tmp_path / "keys").public() == keys.public()
    with pytest.raises(SetupError, match="new authorisation"):
        ServiceKeys.create(tmp_path / "keys")
    os.truncate(tmp_path / "keys" / "director.key", 10)
    with pytest.raises(SetupError, match=r"director\.key"):
        ServiceKeys(tmp_path / "keys")
