"""Who gets through the device door, and what do they find behind it?"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet import publication
from fleet.edge import Edge
from fleet.pki import Authority
from fleet.services import Services
from fleet.store.devices import DeviceRepository
from runtime.contract.canonical import sha256_hex
from runtime.contract.trust import NotFound, ReleaseTrust
from tests.fleet.edge.conftest import ENGINEER, Enrol, make_identity, upload_blobs
from tests.fleet.edge.peers import Engineer, Identity, LoopThread, key_pem, make_request


@pytest.fixture
def door(edge: Edge, loop: LoopThread) -> int:
    loop.run(edge.door.start())
    return edge.door.port


@pytest.fixture
def newcomer(services: Services, tmp_path: Path) -> Identity:
    """A device that has the authority's certificate and no own."""
    return Identity("new", services.authority.certificate_path, tmp_path / "new.crt", tmp_path / "new.key")


def token(api: httpx.Client, **body: object) -> dict[str, str]:
    text = api.post("/api/v1/enrolments", json=body).raise_for_status().json()["token"]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def ask(http: httpx.Client, secret: str, device: str, key: object = None) -> httpx.Response:
    request = make_request(device, key or ec.generate_private_key(ec.SECP256R1()))
    return http.post("/enroll", json={"secret": secret, "device": device, "csr_pem": request.decode()})


def code(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return f"{response.status_code} {response.json()['code']}"


def test_a_device_enrols_and_comes_back_with_its_certificate(
    services: Services, api: httpx.Client, door: int, newcomer: Identity
) -> None:
    content = token(api, labels={"site": "north"})
    with httpx.Client(verify=False, trust_env=False) as blind:
        authority = blind.get(f"{content['url']}/ca.pem").content
    assert Authority(services.authority.folder).sha256 == content["ca_sha256"]
    assert authority == services.authority.pem

    key = ec.generate_private_key(ec.SECP256R1())
    with newcomer.http(door) as http:
        answer = ask(http, content["secret"], "new", key).raise_for_status().json()
    newcomer.certificate.write_text(answer["certificate_pem"])
    newcomer.key.write_bytes(key_pem(key))
    assert sha256_hex(base64.b64decode(answer["root_json_b64"])) == content["root_sha256"]
    assert answer["broker"] == {"host": "127.0.0.1", "port": services.config.broker.port}
    assert (answer["fleet"], answer["device"]) == ("edge", "new")
    with newcomer.http(door) as http:
        assert http.get("/tuf/metadata/1.root.json").content == services.trust.pinned_root
    assert api.get("/api/v1/devices/new").json()["labels"] == {"site": "north"}


def test_a_secret_lets_in_one_device_which_may_ask_again(api: httpx.Client, door: int, newcomer: Identity) -> None:
    secret = token(api)["secret"]
    key = Ed25519PrivateKey.generate()
    with newcomer.http(door) as http:
        first = ask(http, secret, "new", key)
        assert ask(http, secret, "new", key).json()["certificate_pem"] == first.json()["certificate_pem"]
        assert code(ask(http, secret, "new")) == "401 enrolment.refused"
        assert code(ask(http, secret, "other")) == "401 enrolment.refused"


def test_enrolments_that_are_refused(services: Services, api: httpx.Client, door: int, newcomer: Identity, enrol: Enrol) -> None:
    enrol("taken")
    secret, pinned = token(api)["secret"], token(api, device="chosen")["secret"]
    big = rsa.generate_private_key(65537, 2048)
    with newcomer.http(door) as http:
        assert code(ask(http, "guessed", "new")) == "401 enrolment.refused"
        assert code(ask(http, pinned, "new")) == "401 enrolment.refused"
        assert code(ask(http, secret, "taken")) == "409 device.exists"
        assert code(ask(http, secret, "Not An Id")) == "422 enrolment.bad_csr"
        assert code(ask(http, secret, "service.ingest")) == "422 enrolment.bad_csr"
        assert code(ask(http, secret, "new", big)) == "422 enrolment.bad_csr"
        other = {"secret": secret, "device": "new", "csr_pem": make_request("old", Ed25519PrivateKey.generate()).decode()}
        assert code(http.post("/enroll", json=other)) == "422 enrolment.bad_csr"
        assert code(http.post("/enroll", json=other | {"csr_pem": "no"})) == "422 enrolment.bad_csr"
        assert code(http.post("/enroll", content=b"{")) == "422 contract.malformed"
        assert code(http.post("/enroll", content=bytes(100_000))) == "413 contract.too_large"
        # None of these used the secret up.
        assert ask(http, secret, "new").status_code == 201


def test_only_enrolled_unrevoked_devices_get_past_the_threshold(
    services: Services, door: int, newcomer: Identity, enrol: Enrol, tmp_path: Path
) -> None:
    known = enrol("known")
    never = make_identity(tmp_path, services.authority, "never")
    pair = services.authority.service("ingest", services.authority.certificate.not_valid_before_utc)
    service = Identity("service.ingest", services.authority.certificate_path, pair.certificate, pair.key)
    with newcomer.http(door) as http:
        for path in ("/tuf/metadata/1.root.json", f"/blobs/{'0' * 64}", f"/blobs/{'0' * 64}/chunks"):
            assert code(http.get(path)) == "401 auth.no_certificate"
    for identity in (never, service):
        with identity.http(door) as http:
            assert code(http.get("/tuf/metadata/1.root.json")) == "403 device.barred"
    with known.http(door) as http:
        assert http.get("/tuf/metadata/1.root.json").status_code == 200
        with services.database.write() as session:
            DeviceRepository(session).revoke("known", services.now_ms())
        assert code(http.get("/tuf/metadata/1.root.json")) == "403 device.barred"


def test_another_authoritys_certificate_is_refused_by_tls(services: Services, door: int, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", "other", services.authority.certificate.not_valid_before_utc)
    stranger = make_identity(tmp_path, other, "known")
    forged = Identity("known", services.authority.certificate_path, stranger.certificate, stranger.key)
    with forged.http(door) as http, pytest.raises(httpx.TransportError):
        http.get("/tuf/metadata/1.root.json")


def test_a_device_finds_a_release_and_its_payload(
    authorized: Services, engineer: Engineer, door: int, enrol: Enrol, tmp_path: Path
) -> None:
    payload = bytes(range(256)) * 4000
    release = engineer.release("digits", "1.0.0", payload=payload)
    upload_blobs(authorized, release)
    publication.publish(authorized, "digits", "1.0.0", release.upload, ENGINEER)
    with enrol("one").http(door) as http:

        def fetch(path: str) -> Iterator[bytes]:
            response = http.get(f"/tuf/{path}")
            if response.status_code == 404:
                raise NotFound(path)
            yield response.raise_for_status().content

        trust = ReleaseTrust(tmp_path / "trust", engineer.seed, sha256_hex(engineer.seed), fetch)
        trust.refresh()
        sha256 = sha256_hex(release.upload.documents["digits/1.0.0/x86-64-cpu/manifest.json"])
        manifest = trust.manifest("digits", "1.0.0", "x86-64-cpu", sha256)
        blob = manifest.value.files[0].sha256
        assert http.get(f"/blobs/{blob}").content == payload
        assert trust.director_keys().keys() == {authorized.trust.keys.director_id}


RANGES: list[tuple[str, int, tuple[int, int] | None]] = [
    ("bytes=0-9", 206, (0, 9)),
    ("bytes=990-", 206, (990, 999)),
    ("bytes=990-5000", 206, (990, 999)),
    ("bytes=-10", 206, (990, 999)),
    ("bytes=-5000", 206, (0, 999)),
    ("bytes=999-999", 206, (999, 999)),
    ("bytes=1000-", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=9-3", 416, None),
    ("bytes=0-1,4-5", 200, (0, 999)),
    ("lines=0-1", 200, (0, 999)),
    ("bytes=-", 200, (0, 999)),
]


def test_ranges(services: Services, door: int, enrol: Enrol) -> None:
    payload = bytes(i % 251 for i in range(1000))
    with services.blobs.upload(sha256_hex(payload)) as upload:
        upload.write(payload)
        upload.commit()
    with enrol("one").http(door) as http:
        for wanted, status, span in RANGES:
            response = http.get(f"/blobs/{sha256_hex(payload)}", headers={"range": wanted})
            assert response.status_code == status, wanted
            if span is None:
                assert code(response) == "416 blob.bad_range"
                assert response.headers["content-range"] == "bytes */1000"
                continue
            assert response.content == payload[span[0] : span[1] + 1], wanted
            assert int(response.headers["content-length"]) == len(response.content)
            if status == 206:
                assert response.headers["content-range"] == f"bytes {span[0]}-{span[1]}/1000"


def test_there_is_nothing_else_to_find(door: int, enrol: Enrol) -> None:
    with enrol("one").http(door) as http:
        for path in (
            "/tuf/metadata/../../keys/director.key",
            "/tuf/metadata/%2e%2e/%2e%2e/keys/director.key",
            "/tuf/targets/..%2f..%2fadmin.token",
            "/tuf/lock",
            "/tuf/metadata/9.root.json",
            "/tuf/targets/digits/1.0.0/x/manifest.json",
            f"/blobs/{'0' * 64}",
        ):
            response = http.send(http.build_request("GET", httpx.URL(http.base_url, raw_path=path.encode())))
            assert response.status_code == 404, path


def test_a_blobs_name_is_a_digest(door: int, enrol: Enrol) -> None:
    with enrol("one").http(door) as http:
        assert code(http.get("/blobs/..%5cadmin.token")) == "422 request.invalid"
