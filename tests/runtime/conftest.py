"""The fleet's side of a device, once per run: certificate authority, broker, and per test a release store with its door."""

import pytest

from tests.support.broker import Broker, FleetClient
from tests.support.daemon import DaemonProcess, enrolled
from tests.support.pki import Authority
from tests.support.store import Door, ReleaseStore


@pytest.fixture(scope="session", autouse=True)
def bytecode(request):
    """Subprocesses keep their compiled modules, whatever the environment says: each would compile NumPy anew otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(request.config.cache.mkdir("bytecode")))
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def broker(authority, tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("broker") / "broker", authority)
    yield broker
    broker.stop()


@pytest.fixture
def fleet(broker):
    client = FleetClient(broker)
    yield client
    client.stop()


@pytest.fixture
def store():
    return ReleaseStore()


@pytest.fixture
def door(authority, broker, store):
    door = Door(authority, store)
    door.broker = {"host": "localhost", "port": broker.port}
    yield door
    door.stop()


@pytest.fixture
def start_daemon(tmp_path, door):
    """Start enrolled daemons; whatever still runs at the end of the test is stopped."""
    running = []

    def start(device, prelude="", **settings):
        daemon = DaemonProcess(enrolled(tmp_path / device, door, device), **settings)
        running.append(daemon.start(prelude))
        return daemon

    yield start
    for daemon in running:
        daemon.stop()
