"""A fleet's home on disk, an API over it, and a peer that plays devices by writing reports and windows into the store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fleet.app import create_app
from fleet.config import Config, load
from fleet.scheduler import Scheduler
from fleet.services import ADMIN_TOKEN, Services, open_services
from fleet.setup import initialise
from tests.fleet.peers import Clock, Devices, root_json
from tests.fleet.serving import serving

START_MS = 1_790_000_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock(START_MS)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    flags = {"scheduler.evaluate_ms": 50, "limits.body_bytes": 256 * 1024, "limits.stream_clients": 20}
    return load(None, flags, {"EDGEWRIGHT_FLEET_HOME": str(tmp_path / "home")})[0]


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `fleet init` leaves it; making one takes longer than most tests, so each gets a copy."""
    home = tmp_path_factory.mktemp("fleet") / "home"
    initialise(load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(home)})[0], root_json())
    return home


@pytest.fixture
def services(config: Config, clock: Clock, fresh_home: Path) -> Iterator[Services]:
    shutil.copytree(fresh_home, config.home)
    opened = open_services(config, clock.now_ms)
    yield opened
    opened.close()


@pytest.fixture
def scheduler(services: Services) -> Scheduler:
    made = Scheduler(services.database, services.changes, services.now_ms, services.config.scheduler, lambda: None)
    made.take_charge()
    return made


@pytest.fixture
def devices(services: Services) -> Devices:
    return Devices(services)


@pytest.fixture
def api(services: Services) -> Iterator[httpx.Client]:
    """The API as an admin sees it, without the parts that run beside it."""
    token = (services.config.home / ADMIN_TOKEN).read_text().strip()
    with serving(create_app(services)) as url, httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}) as client:
        yield client
