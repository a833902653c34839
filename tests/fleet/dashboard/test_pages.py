"""Every page over the real application and a real store: what it says, and that nothing of a device's becomes markup."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.fleet.dashboard.conftest import signed_in
from tests.fleet.dashboard.story import Story


@pytest.fixture(scope="module")
def viewer(told: Story) -> Iterator[httpx.Client]:
    with signed_in(told.url, "viewer") as browser:
        yield browser


def text_of(html: str) -> str:
    """What a reader sees, roughly: markup out, white space folded."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def block(html: str, testid: str) -> str:
    """From the element with a test id up to the next element that has one."""
    start = html.index(f'data-testid="{testid}"')
    end = html.find('data-testid="', start + 20)
    return html[start:end]


def test_overview_shows_devices_versions_alerts_and_rollouts(viewer: httpx.Client) -> None:
    page = viewer.get("/")
    assert page.status_code == 200
    text = text_of(page.text)
    assert "4 / 4" in text
    assert "1–4 of 4 devices" in text
    assert "1.0.0" in text
    assert "No rollout is running" in text
    assert "gate class_mix" in text
    assert "drift on gw-3" in text


@pytest.mark.parametrize(("query", "there", "absent"), [
    ("only=drifting", ["gw-3"], ["gw-1", "gw-2", "gw-4"]),
    ("only=offline", [], ["gw-1", "gw-2", "gw-3", "gw-4"]),
    ("q=GW-2", ["gw-2"], ["gw-1", "gw-3", "gw-4"]),
    ("q=lab", ["gw-1", "gw-2"], ["gw-3", "gw-4"]),
    ("q=%25", [], ["gw-1", "gw-2", "gw-3", "gw-4"]),
    ("only=nonsense", ["gw-1", "gw-2", "gw-3", "gw-4"], []),
])  # fmt: skip
def test_device_table_is_filtered(viewer: httpx.Client, query: str, there: list[str], absent: list[str]) -> None:
    html = viewer.get(f"/?{query}").text
    assert [name for name in there if f'data-testid="device-{name}"' not in html] == []
    assert [name for name in absent if f'data-testid="device-{name}"' in html] == []


def test_device_page_tells_slots_updates_windows_and_hardware(told: Story, viewer: httpx.Client) -> None:
    html = viewer.get("/devices/gw-1").text
    text = text_of(html)
    assert "Serves digits" in text
    assert "Up to date" in text
    assert "onnxruntime 1.31.0" in text
    assert "Update begins" in text
    assert "Update ended" in text
    assert f"rollout {told.rollouts['1.0.0']}" in text
    assert html.count("<figure") >= 5  # requests, latency, failures, CPU, RSS


@pytest.mark.parametrize("span", ["15m", "1h", "6h", "24h", "7d", "nonsense", ""])
def test_device_page_covers_any_span(viewer: httpx.Client, span: str) -> None:
    assert viewer.get(f"/devices/gw-1?span={span}").status_code == 200


def test_drift_of_a_device_is_ranked_with_the_shifted_stream_first(viewer: httpx.Client) -> None:
    html = viewer.get("/devices/gw-3/drift").text
    first = html.index('data-rank="1"')
    assert html[:first].rstrip().endswith('data-testid="stream-brightness"')
    assert 'data-state="alarm"' in html[first : html.index('data-rank="2"')]
    assert html.count('<rect class="bar"') == 4 * 32
    assert "Alarm" in text_of(viewer.get("/drift").text)


def test_a_steady_device_has_no_alarm(viewer: httpx.Client) -> None:
    assert 'data-state="alarm"' not in viewer.get("/devices/gw-1/drift").text


def test_release_page_shows_metric_evidence_lineage_and_devices(viewer: httpx.Client) -> None:
    text = text_of(viewer.get("/releases/digits/1.0.0").text)
    assert "0.9833" in text
    assert "0.9708 to 0.9965, 360 test examples" in text
    assert "201 µs" in text
    assert "metric falls 1.67 points, 1.00 allowed" in text
    assert "4 devices" in text
    assert "Recipe" in text
    assert "digits 1.1.0" in text_of(viewer.get("/releases").text)


def test_stopped_rollout_shows_the_gate_with_its_numbers(told: Story, viewer: httpx.Client) -> None:
    html = viewer.get(f"/rollouts/{told.rollouts['1.1.0']}").text
    assert "Rolled back" in block(html, "rollout-state")
    assert "gate class_mix" in text_of(block(html, "rollout-reason"))
    assert "Stopped here" in block(html, "stage-status")
    gate = html[html.index('data-testid="gate-class_mix"') :]
    gate = text_of(gate[: gate.index("</details>")])
    assert "Fail" in gate
    assert "0.0 %" in gate
    assert "class 7" in gate
    timeline = text_of(html[html.index('data-testid="timeline"') :])
    for line in ("Created by mara, operator", "Started", "Update begins", "Rolling back", "rollout.stopped"):
        assert line in timeline
    assert 'data-testid="action-pause"' not in html


def test_a_large_rollout_shows_its_first_devices_and_counts_the_rest(
    told: Story, viewer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.dashboard.reading.rollouts.JOBS", 3)
    html = viewer.get(f"/rollouts/{told.rollouts['1.0.0']}").text
    assert html.count('data-testid="job-state"') == 3
    text = text_of(html)
    assert "and 1 more devices, waiting or done" in text
    assert "4 of 4 devices updated" in text


def test_rollout_list_has_every_rollout(told: Story, viewer: httpx.Client) -> None:
    html = viewer.get("/rollouts").text
    for rollout in told.rollouts.values():
        assert f'data-testid="rollout-{rollout}"' in html


def test_text_of_a_device_stays_text(viewer: httpx.Client) -> None:
    for path in ("/", "/devices/gw-3"):
        html = viewer.get(path).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert "<script>alert(1)" not in html


def test_pages_allow_nothing_foreign_and_nothing_inline(viewer: httpx.Client) -> None:
    for path in ("/", "/rollouts", "/releases", "/drift", "/devices/gw-1", "/devices/gw-3/drift", "/releases/digits/1.0.0"):
        page = viewer.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", page.text)
        assert re.findall(r"<script(?! src=\"/static/)", page.text) == []
        assert re.findall(r"(?:src|href|action)=\"(?!/|#)", page.text) == []


def test_static_files_are_cached_for_ever_under_their_digest(viewer: httpx.Client) -> None:
    address = re.search(r"/static/[0-9a-f]{12}/dashboard\.js", viewer.get("/").text)
    assert address
    answer = viewer.get(address.group())
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert viewer.get("/static/000000000000/dashboard.js").status_code == 404


@pytest.mark.parametrize(("path", "status", "code"), [
    ("/devices/nobody", 404, "device.unknown"),
    ("/devices/nobody/drift", 404, "device.unknown"),
    ("/rollouts/r-0", 404, "rollout.unknown"),
    ("/releases/digits/9.9.9", 404, "release.unknown"),
    ("/?page=0", 422, "request.invalid"),
])  # fmt: skip
def test_what_is_not_there_has_a_page_with_the_stable_code(viewer: httpx.Client, path: str, status: int, code: str) -> None:
    page = viewer.get(path)
    assert page.status_code == status
    assert code in page.text
    assert page.headers["content-type"].startswith("text/html")


def test_an_empty_fleet_says_what_to_do_next(empty: Story) -> None:
    with signed_in(empty.url, "viewer") as browser:
        for path, hint in (
            ("/", "fleet token enrol"),
            ("/rollouts", "fleet rollout create"),
            ("/releases", "toolchain publish"),
            ("/drift", "Nothing to judge yet"),
        ):
            page = browser.get(path)
            assert page.status_code == 200
            assert hint in page.text
        empty.devices.enrol("gw-1", report=False)
        for path in ("/devices/gw-1", "/devices/gw-1/drift"):
            assert "Serves nothing yet" in browser.get(path).text
