"""Can an operator watch a rollout live, pause it and roll it back, by clicking alone?"""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.demo.local_fleet import LocalFleet, roll_out_at_once
from benchmarks.demo.traffic import DigitsClient, held_out_digits
from tests.e2e.steps import Releases, wait_for_state, wait_until_serving

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

LONG_CANARY = [{"count": 1, "soak_s": 60}, {"percent": 100, "soak_s": 1}]


@pytest.fixture(scope="module")
def page(fleet: LocalFleet) -> Iterator[Page]:
    """The system's Chromium, logged in."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium here: run `sh requirements/system.sh chromium`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(fleet.url)
        page.get_by_test_id("token").fill(fleet.admin_token)
        page.get_by_test_id("sign-in").click()
        expect(page.get_by_test_id("device-alpha")).to_be_visible()
        yield page
        browser.close()


def test_a_rollout_is_watched_live_paused_and_rolled_back(fleet: LocalFleet, releases: Releases, page: Page) -> None:
    before = fleet.serving("alpha")
    version = releases.new()
    rollout = roll_out_at_once(fleet, version, stages=LONG_CANARY)

    page.goto(f"{fleet.url}/rollouts/{rollout}")
    state = page.get_by_test_id("rollout-state")
    expect(state).to_contain_text("soaking", ignore_case=True, timeout=30_000)  # live: the page is not loaded again
    expect(page.get_by_test_id("gate-failed_updates")).to_contain_text("pass", ignore_case=True)

    click_through(page, "pause")
    expect(state).to_contain_text("paused", ignore_case=True)
    assert wait_for_state(fleet, rollout, "paused")

    click_through(page, "rollback")
    expect(state).to_contain_text("rolled back", ignore_case=True, timeout=30_000)
    wait_for_state(fleet, rollout, "rolled_back")
    wait_until_serving(fleet, str(before))


def test_device_and_drift_pages_show_the_real_device(fleet: LocalFleet, page: Page) -> None:
    images, _ = held_out_digits()
    client = DigitsClient(fleet.devices["alpha"].port)
    client.infer(images)  # one block of rows, enough to be judged
    client.close()
    page.goto(f"{fleet.url}/devices/alpha")
    expect(page.locator("body")).to_contain_text(str(fleet.serving("alpha")))
    page.goto(f"{fleet.url}/devices/alpha/drift")
    expect(page.get_by_test_id("stream-sharpness")).to_be_visible(timeout=20_000)  # appears by itself once windows arrived


def click_through(page: Page, action: str) -> None:
    """Press an action's button and confirm its dialog."""
    page.get_by_test_id(f"action-{action}").click()
    page.get_by_test_id(f"confirm-{action}").click()
