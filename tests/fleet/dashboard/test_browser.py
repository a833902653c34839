"""In a real browser: sign in, watch a rollout change by itself, pause it and roll it back by clicking."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Request, expect, sync_playwright

from fleet.domain.rollout import RolloutEvent
from tests.fleet.dashboard.story import OPERATOR, Mood, Story

pytestmark = pytest.mark.browser
WAIT_MS = 10_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, story: Story) -> Iterator[Page]:
    """A signed-in operator; every complaint of the browser and every foreign request fails the test at its end."""
    complaints: list[str] = []
    opened = chromium.new_page()
    opened.set_default_timeout(WAIT_MS)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)

    def check(request: Request) -> None:
        if not request.url.startswith(story.url):
            complaints.append(f"foreign request: {request.url}")

    opened.on("request", check)
    opened.goto(story.url)
    opened.get_by_label("API token").fill("operator")
    opened.get_by_test_id("sign-in").click()
    expect(opened.get_by_test_id("user")).to_contain_text("the-operator")
    yield opened
    opened.close()
    assert complaints == []


def confirm(page: Page, action: str) -> None:
    page.get_by_test_id(f"action-{action}").click()
    expect(page.get_by_test_id(f"dialog-{action}")).to_be_visible()
    page.get_by_test_id(f"confirm-{action}").click()


def test_rollout_is_watched_live_paused_and_rolled_back_by_clicking(page: Page, story: Story) -> None:
    rollout = story.rollouts["1.1.0"]
    page.get_by_test_id(f"rollout-{rollout}").get_by_role("link", name="digits 1.1.0").click()
    state = page.get_by_test_id("rollout-state")
    expect(state).to_have_text("Soaking")
    expect(page.get_by_test_id("stage-1")).to_contain_text("1 of 1 device updated")
    expect(page.locator("html")).to_have_attribute("data-live", "on", timeout=WAIT_MS)

    page.evaluate("window.untouched = true")
    story.services.control.act(rollout, RolloutEvent.PAUSE, OPERATOR)
    expect(state).to_have_text("Paused", timeout=WAIT_MS)
    expect(page.get_by_test_id("rollout-reason")).to_contain_text("pause by mara")
    expect(page.get_by_test_id("action-pause")).to_be_disabled()
    assert page.evaluate("window.untouched"), "the page was loaded again instead of being updated"

    confirm(page, "resume")
    expect(state).to_have_text("Updating")
    story.scheduler.run_once()
    expect(state).to_have_text("Soaking", timeout=WAIT_MS)

    confirm(page, "pause")
    expect(state).to_have_text("Paused")
    confirm(page, "rollback")
    expect(state).to_have_text("Rolling back")
    story.minutes(1)
    expect(state).to_have_text("Rolled back", timeout=WAIT_MS)
    expect(page.get_by_test_id("stage-1")).to_contain_text("1 went back")
    expect(page.get_by_test_id("timeline")).to_contain_text("Rollback ordered")
    assert {device.serving["digits"].version for device in story.devices.played.values()} == {"1.0.0"}


def test_live_update_keeps_an_open_question_and_an_open_gate_open(page: Page, story: Story) -> None:
    rollout = story.rollouts["1.1.0"]
    page.goto(f"{story.url}/rollouts/{rollout}")
    expect(page.locator("html")).to_have_attribute("data-live", "on", timeout=WAIT_MS)
    gate = page.get_by_test_id("gate-latency")
    gate.locator("summary").click()
    expect(gate).to_have_attribute("open", "")
    page.get_by_test_id("action-rollback").click()
    dialog = page.get_by_test_id("dialog-rollback")
    expect(dialog).to_be_visible()
    history = gate.locator(".gate-history i")
    before = history.count()
    story.minutes(2)
    expect(history).not_to_have_count(before, timeout=WAIT_MS)
    expect(dialog).to_be_visible()
    expect(gate).to_have_attribute("open", "")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(page.get_by_test_id("action-rollback")).to_be_focused()


def test_gate_that_fails_unfolds_by_itself(page: Page, story: Story) -> None:
    page.goto(f"{story.url}/rollouts/{story.rollouts['1.1.0']}")
    expect(page.locator("html")).to_have_attribute("data-live", "on", timeout=WAIT_MS)
    gate = page.get_by_test_id("gate-class_mix")
    expect(gate).not_to_have_attribute("open", "")
    for device in story.devices.played:
        story.moods[device] = Mood(seven_share=0.7)  # far beyond chance, whichever device is the canary
    story.minutes(1)
    expect(gate).to_have_attribute("open", "", timeout=WAIT_MS)
    expect(gate).to_contain_text("class 7")
    expect(page.get_by_test_id("rollout-reason")).to_contain_text("gate class_mix")


def test_keyboard_alone_reaches_a_device_by_search(page: Page, story: Story) -> None:
    page.keyboard.press("/")
    expect(page.get_by_test_id("search")).to_be_focused()
    for letter in "gw-3":  # live updates arrive between the keys and must not take a letter back
        story.services.changes.publish("device", "gw-1")
        page.keyboard.type(letter, delay=120)
    expect(page.get_by_test_id("search")).to_have_value("gw-3")
    expect(page.get_by_test_id("device-gw-1")).to_have_count(0)
    expect(page.get_by_test_id("search")).to_be_focused()
    page.get_by_role("link", name="gw-3", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("gw-3")
    assert story.url in page.url
