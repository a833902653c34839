"""Do the client, the publisher and the real service agree, from the first authorisation to a release devices believe?"""

import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet.app import create_app
from fleet.client import ApiError, Client
from fleet.config import load
from fleet.services import ADMIN_TOKEN, Services, open_services
from fleet.setup import initialise
from runtime.contract.canonical import sha256_hex
from runtime.contract.trust import NotFound, ReleaseTrust
from tests.fleet.serving import serving
from tests.toolchain.package.conftest import make_artifact
from toolchain.errors import ConflictError, FleetRefusedError, KeysError
from toolchain.package.authorize import authorize, create_root, rotate
from toolchain.package.bundle import bundle
from toolchain.package.keys import KeyFolder
from toolchain.package.publish import Publication, publish
from toolchain.package.read import read_release

NOW = datetime.now(UTC)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    create_root(folder, NOW)
    return folder


@pytest.fixture
def services(tmp_path: Path, keys: KeyFolder) -> Iterator[Services]:
    config = load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(tmp_path / "home")})[0]
    initialise(config, keys.seed.read_bytes())
    opened = open_services(config)
    yield opened
    opened.close()


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    token = (services.config.home / ADMIN_TOKEN).read_text().strip()
    with serving(create_app(services)) as url, Client(url, token) as made:
        yield made


def send(client: Client, keys: KeyFolder, path: Path) -> Publication:
    return publish(client, keys, path, NOW, lambda _: None)


def test_from_the_seed_to_a_release_that_devices_believe(
    client: Client, services: Services, keys: KeyFolder, tmp_path: Path
) -> None:
    artifact = make_artifact(tmp_path)
    with pytest.raises(KeysError, match="keys authorize"):
        send(client, keys, artifact.parent)
    assert authorize(client, keys, NOW).changed
    assert not authorize(client, keys, NOW).changed
    assert send(client, keys, artifact.parent).added == ("x86-64-cpu",)
    assert send(client, keys, artifact.parent).added == ()
    rotate(client, keys, "targets", NOW)
    rotate(client, keys, "root", NOW)
    newer = make_artifact(tmp_path, version="1.1.0", content=b"wider")
    assert send(client, keys, newer.parent).role_version == 2

    assert [release["version"] for release in client.releases()] == ["1.1.0", "1.0.0"]
    found = client.release("digits", "1.1.0")["artifacts"][0]
    assert found["sha256"] == sha256_hex((newer / "manifest.json").read_bytes())

    seed = keys.seed.read_bytes()

    def fetch(path: str) -> Iterator[bytes]:
        file = services.trust.folder / path
        if not file.is_file():
            raise NotFound(path)
        yield file.read_bytes()

    trust = ReleaseTrust(tmp_path / "device", seed, sha256_hex(seed), fetch)
    trust.refresh()
    trust.manifest("digits", "1.1.0", "x86-64-cpu", found["sha256"])
    assert set(trust.director_keys().values()) == {bytes.fromhex(client.service_keys()["director"])}


def test_publishers_at_the_same_time_all_get_through(client: Client, services: Services, keys: KeyFolder, tmp_path: Path) -> None:
    authorize(client, keys, NOW)
    models = ["digits", "pumps", "fans"]
    token = (services.config.home / ADMIN_TOKEN).read_text().strip()

    def one(model: str) -> Publication:
        with Client(client.url, token) as own:
            return send(own, keys, make_artifact(tmp_path, model=model).parent)

    with ThreadPoolExecutor(len(models)) as pool:
        done = list(pool.map(one, models))
    assert [each.added for each in done] == [("x86-64-cpu",)] * len(models)
    assert {release["model"] for release in client.releases()} == set(models)


def test_other_content_under_a_published_name_stays_refused(client: Client, keys: KeyFolder, tmp_path: Path) -> None:
    authorize(client, keys, NOW)
    send(client, keys, make_artifact(tmp_path).parent)
    with pytest.raises(ConflictError, match="raise the version"):
        send(client, keys, make_artifact(tmp_path, content=b"other").parent)


def test_a_published_release_travels_as_a_bundle(client: Client, keys: KeyFolder, tmp_path: Path) -> None:
    authorize(client, keys, NOW)
    artifact = make_artifact(tmp_path)
    send(client, keys, artifact.parent)
    done = bundle(client, keys, read_release(artifact.parent), tmp_path / "digits.edge")
    assert done.targets == ("x86-64-cpu",)
    with zipfile.ZipFile(tmp_path / "digits.edge") as archive:
        assert archive.testzip() is None


def test_without_a_token_nothing_is_published(client: Client, keys: KeyFolder, tmp_path: Path) -> None:
    with Client(client.url) as stranger, pytest.raises(FleetRefusedError, match=r"auth\.unauthenticated"):
        send(stranger, keys, make_artifact(tmp_path).parent)


def test_answers_have_the_form_the_client_expects(client: Client) -> None:
    assert client.health()["parts"]["database"] == "ok"
    assert list(client.devices()) == list(client.rollouts()) == list(client.alerts(only_open=True)) == []
    assert len(client.create_enrolment(labels={"site": "north"}, ttl_s=60)) > 40
    made = client.create_token("ada", "viewer")
    assert {token["name"] for token in client.tokens()} >= {"ada"}
    with Client(client.url, made["token"]) as viewer, pytest.raises(ApiError, match=r"auth\.forbidden"):
        viewer.revoke_token("ada")
    client.revoke_token("ada")
    assert "token.revoke" in {entry["action"] for entry in client.audit()}
    with pytest.raises(ApiError) as caught:
        client.device("nobody")
    assert (caught.value.status, caught.value.code) == (404, "device.unknown")
    with pytest.raises(ApiError, match=r"release\.unknown"):
        client.create_rollout({"model": "digits", "version": "1.0.0", "stages": [{"percent": 100}]})


def test_changes_come_over_the_stream(client: Client, services: Services) -> None:
    published = threading.Event()

    def publish_until_heard() -> None:
        while not published.wait(0.05):  # the listener registers some time after its call returns
            services.changes.publish("device", "pi-1")

    thread = threading.Thread(target=publish_until_heard)
    thread.start()
    events = client.stream()
    try:
        assert next(events) == {"kind": "device", "id": "pi-1"}
    finally:
        published.set()
        thread.join()
        events.close()
