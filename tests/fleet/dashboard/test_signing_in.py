"""The way in and what a role may do: cookie, CSRF token, expiry, revocation, buttons."""

import httpx
import pytest

from fleet.domain.rollout import RolloutEvent
from fleet.store.access import AccessRepository
from fleet.store.rollouts import RolloutRepository
from tests.fleet.dashboard.conftest import form_token, signed_in
from tests.fleet.dashboard.story import OPERATOR, Story


def state_of(story: Story) -> str:
    with story.services.database.read() as session:
        return RolloutRepository(session).get(story.rollouts["1.1.0"]).state


def test_a_stranger_is_led_to_the_login_and_back(empty: Story) -> None:
    with httpx.Client(base_url=empty.url) as browser:
        away = browser.get("/rollouts?x=1")
        assert away.status_code == 303
        assert away.headers["location"] == "/login?next=%2Frollouts%3Fx%3D1"
        form = browser.get(away.headers["location"])
        assert "API token" in form.text
        inside = browser.post("/login", data={"csrf": form_token(form.text), "token": "viewer", "next": "/rollouts?x=1"})
        assert inside.headers["location"] == "/rollouts?x=1"
        cookie = inside.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert "viewer" not in cookie
        assert browser.get("/rollouts").status_code == 200


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""])
def test_login_never_leads_to_another_site(empty: Story, elsewhere: str) -> None:
    with httpx.Client(base_url=empty.url) as browser:
        csrf = form_token(browser.get("/login").text)
        answer = browser.post("/login", data={"csrf": csrf, "token": "viewer", "next": elsewhere})
        assert answer.headers["location"] == "/"


def test_wrong_token_is_told_and_leaves_no_session(empty: Story) -> None:
    with httpx.Client(base_url=empty.url) as browser:
        csrf = form_token(browser.get("/login").text)
        answer = browser.post("/login", data={"csrf": csrf, "token": "nonsense"})
        assert answer.status_code == 401
        assert "unknown, expired or revoked" in answer.text
        assert "nonsense" not in answer.text
        assert browser.get("/").status_code == 303


def test_login_itself_needs_its_form(empty: Story) -> None:
    with httpx.Client(base_url=empty.url) as browser:
        assert browser.post("/login", data={"csrf": "", "token": "viewer"}).status_code == 403
        browser.get("/login")
        refused = browser.post("/login", data={"csrf": "0" * 64, "token": "viewer"})
        assert refused.status_code == 403
        assert "auth.stale_form" in refused.text


def test_form_token_of_another_session_is_refused(story: Story) -> None:
    action = f"/rollouts/{story.rollouts['1.1.0']}/pause"
    with signed_in(story.url, "operator") as mine, signed_in(story.url, "operator") as other:
        foreign = form_token(other.get("/").text)
        for csrf in ("", foreign, "x" * 64):
            refused = mine.post(action, data={"csrf": csrf})
            assert refused.status_code == 403, refused.text
            assert "auth.stale_form" in refused.text
        assert mine.post(action).status_code == 403
        assert state_of(story) == "soaking"
        assert mine.post(action, data={"csrf": form_token(mine.get("/").text)}).status_code == 303
        assert state_of(story) == "paused"


def test_viewer_sees_grey_buttons_and_cannot_press_them(story: Story) -> None:
    rollout = f"/rollouts/{story.rollouts['1.1.0']}"
    with signed_in(story.url, "viewer") as browser:
        html = browser.get(rollout).text
        assert 'disabled title="needs the role operator"' in html
        assert "<dialog" not in html
        refused = browser.post(f"{rollout}/rollback", data={"csrf": form_token(html)})
        assert refused.status_code == 403
        assert "auth.forbidden" in refused.text
    assert state_of(story) == "soaking"


@pytest.mark.parametrize("role", ["operator", "admin"])
def test_operator_and_admin_pause_resume_and_roll_back(story: Story, role: str) -> None:
    rollout = f"/rollouts/{story.rollouts['1.1.0']}"
    with signed_in(story.url, role) as browser:
        csrf = form_token(browser.get("/").text)
        for action, state in (("pause", "paused"), ("resume", "updating"), ("rollback", "rolling_back")):
            answer = browser.post(f"{rollout}/{action}", data={"csrf": csrf})
            assert (answer.status_code, answer.headers["location"]) == (303, rollout)
            assert state_of(story) == state
    with story.services.database.read() as session:
        done = [(entry.actor, entry.action) for entry in AccessRepository(session).audit_page(None, 4)]
    assert done[:3] == [(f"the-{role}", f"rollout.{action}") for action in ("rollback", "resume", "pause")]
    assert done[3] == (f"the-{role}", "session.login")


def test_what_the_state_does_not_allow_is_refused_beside_the_state(story: Story) -> None:
    rollout = story.rollouts["1.1.0"]
    story.services.control.act(rollout, RolloutEvent.PAUSE, OPERATOR)
    with signed_in(story.url, "operator") as browser:
        html = browser.get(f"/rollouts/{rollout}").text
        again = browser.post(f"/rollouts/{rollout}/pause", data={"csrf": form_token(html)})
        assert again.status_code == 409
        assert "rollout.bad_state" in again.text
        assert 'data-testid="action-resume"' in again.text
        assert browser.post(f"/rollouts/{rollout}/explode", data={"csrf": form_token(html)}).status_code == 422
        assert browser.post("/rollouts/r-0/pause", data={"csrf": form_token(html)}).status_code == 404


def test_session_ends_with_logout_expiry_and_revocation(story: Story) -> None:
    with signed_in(story.url, "viewer") as browser:
        csrf = form_token(browser.get("/").text)
        assert browser.post("/logout", data={"csrf": "x"}).status_code == 403
        assert browser.post("/logout", data={"csrf": csrf}).headers["location"] == "/login"
        assert browser.get("/").status_code == 303
    with signed_in(story.url, "viewer") as browser:
        story.clock.pass_s(12 * 3600 + 1)
        assert browser.get("/").status_code == 303
    with signed_in(story.url, "viewer") as browser:
        with story.services.database.write() as session:
            access = AccessRepository(session)
            row = next(token for token in access.tokens() if token.role == "viewer")
            row.revoked_ms = story.clock.now_ms()
        assert browser.get("/").status_code == 303
        assert browser.get("/", headers={"HX-Request": "true"}).headers["hx-redirect"] == "/login"
        assert browser.get("/live?watch=device").status_code == 401
