"""A told story for pages that only read, a short one for buttons, and browsers' cookies for every role."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fleet.api.auth import hash_token
from fleet.app import create_app
from fleet.config import load
from fleet.services import open_services
from fleet.setup import initialise
from fleet.store.access import AccessRepository, Role
from tests.fleet.dashboard.story import Mood, Story
from tests.fleet.peers import Clock, root_json
from tests.fleet.serving import serving

START_MS = 1_790_000_000_000
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")


def open_story(home: Path) -> Story:
    """An empty fleet; the token of each role is the role's name, which no real token could be."""
    config = load(None, {"scheduler.evaluate_ms": 50}, {"EDGEWRIGHT_FLEET_HOME": str(home)})[0]
    initialise(config, root_json())
    clock = Clock(START_MS)
    services = open_services(config, clock.now_ms)
    with services.database.write() as session:
        for role in ROLES:
            AccessRepository(session).add_token(f"the-{role}", hash_token(role), role, START_MS)
    return Story(services, clock)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """1.0.0 everywhere, then 1.1.0 stopped by its class mix; gw-3 drifts; the label of gw-3 and gw-4 attacks."""
    story = open_story(tmp_path_factory.mktemp("told") / "home")
    story.devices.enrol("gw-1", "gw-2", labels={"site": "lab"})
    story.devices.enrol("gw-3", "gw-4", labels={"site": "<script>alert(1)</script>"})
    story.publish("1.0.0", "0.9833")
    story.roll_out("1.0.0", [{"percent": 100, "soak_s": 60}], gates={"min_rows": 0})
    story.minutes(4)
    story.publish("1.1.0")
    for device in story.devices.played:
        story.moods[device] = Mood(shift=1.0 if device == "gw-3" else 0.0)
    story.roll_out("1.1.0", [{"count": 1, "soak_s": 600}, {"percent": 100, "soak_s": 60}])
    story.minutes(1)
    for device, played in story.devices.played.items():
        story.moods[device].seven_share = 0.0 if played.serving["digits"].version == "1.1.0" else 0.1
    story.minutes(4)
    with serving(create_app(story.services)) as url:
        story.url = url
        yield story


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """No device, no release."""
    story = open_story(tmp_path_factory.mktemp("empty") / "home")
    with serving(create_app(story.services)) as url:
        story.url = url
        yield story


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Four devices on 1.0.0 and a rollout of 1.1.0 whose first stage soaks."""
    story = open_story(tmp_path / "home")
    story.devices.enrol("gw-1", "gw-2", "gw-3", "gw-4")
    story.publish("1.0.0", "0.9833", with_evidence=False)
    story.roll_out("1.0.0", [{"percent": 100, "soak_s": 0}], gates={"min_rows": 0})
    story.minutes(2)
    story.publish("1.1.0")
    story.roll_out("1.1.0", [{"count": 1, "soak_s": 3600}, {"percent": 100, "soak_s": 60}])
    story.minutes(1)
    with serving(create_app(story.services)) as url:
        story.url = url
        yield story


@contextmanager
def signed_in(url: str, token: str) -> Iterator[httpx.Client]:
    """A browser after the login form; it does not follow redirects."""
    with httpx.Client(base_url=url) as browser:
        csrf = form_token(browser.get("/login").text)
        answer = browser.post("/login", data={"csrf": csrf, "token": token})
        assert answer.status_code == 303, answer.text
        yield browser


def form_token(html: str) -> str:
    """The CSRF token of the first form on a page."""
    return html.split('name="csrf" value="', 1)[1].split('"', 1)[0]
