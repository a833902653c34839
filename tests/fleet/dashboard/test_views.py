"""View models from plain rows, without a store: words, tones and decisions."""

from collections import Counter

import msgspec
import pytest

from fleet.dashboard.reading.overview import PAGE, DeviceFacts, OverviewFacts
from fleet.dashboard.reading.rollouts import JobFacts, RolloutPageFacts
from fleet.dashboard.reading.windows import WindowFacts
from fleet.dashboard.views import status
from fleet.dashboard.views.actions import actions_of
from fleet.dashboard.views.alerts import alert_card
from fleet.dashboard.views.drift import drift_summary, stream_state
from fleet.dashboard.views.events import describe
from fleet.dashboard.views.gates import gate_cards
from fleet.dashboard.views.overview import drift_badge, health_of, overview_page, version_bars
from fleet.dashboard.views.rollout import rollout_page
from fleet.dashboard.views.rollouts import stage_status, stages_of, state_badge
from fleet.dashboard.views.series import window_charts
from fleet.domain.drift import StreamDrift
from fleet.domain.gates import Finding
from fleet.domain.gates import Verdict as VerdictValue
from fleet.domain.jobs import JobState
from fleet.domain.plan import Plan, Stage
from fleet.domain.rollout import ACTIVE, OPERATOR_EVENTS, TRANSITIONS, Progress, RolloutState
from fleet.store.tables import Alert, Artifact, Audit, Device, Drift, Event, Job, Rollout, Verdict
from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState, Outcome
from runtime.contract.telemetry import Window

NOW = 1_790_000_000.0
NOW_MS = int(NOW * 1000)
DIGEST = "a" * 64
STAGES = (Stage(count=1, soak_s=60), Stage(percent=50, soak_s=60, approval=True), Stage(percent=100, soak_s=0))


def a_rollout(state: RolloutState, stage: int = 0, entered_s: float = 0.0) -> Rollout:
    progress = Progress(state=state, stage=stage, entered_ms=NOW_MS - int(entered_s * 1000), reason="because")
    return Rollout(
        id="r-1",
        release_id=1,
        model="digits",
        version="1.1.0",
        plan=msgspec.to_builtins(Plan(model="digits", version="1.1.0", stages=STAGES)),
        state=state.value,
        stage=stage,
        progress=msgspec.to_builtins(progress),
        reason="because",
        created_ms=NOW_MS - 100_000,
        created_by="mara",
        finished_ms=None if state in ACTIVE or state is RolloutState.CREATED else NOW_MS - 10_000,
    )


def a_job(device: str, stage: int, state: JobState, silent_s: float | None = None) -> JobFacts:
    job = Job(rollout="r-1", device=device, attempt=1, position=0, stage=stage, state=state.value, error_code="", error_detail="")
    silent_ms = None if silent_s is None else NOW_MS - int(silent_s * 1000)
    return JobFacts(job, Artifact(version="1.1.0", target="x86-64-cpu"), "1.0.0", None, silent_ms)


def a_window(
    start_s: float, requests: int = 100, errors: int = 0, cpu_ms: int = 0, sha256: str = DIGEST, boot: int = 1
) -> WindowFacts:
    message = Window(
        device="gw-1", boot=boot, seq=1, model="digits", artifact=ArtifactRef(version="1.0.0", target="x86-64-cpu", sha256=sha256),
        edges=DIGEST, start_ms=int(start_s * 1000), duration_ms=60_000, clock_synced=True, latency={64: requests},
        resources={"cpu_ms": cpu_ms, "rss_bytes": 64 * 2**20, "widgets": 3},
    )  # fmt: skip
    return WindowFacts(start_s, 60.0, "digits", "1.0.0", sha256, requests, errors, requests, 0, message)


def a_verdict(gate: str, decision: str, evaluation: int = 1, stage: int = 0, numbers: dict[str, object] | None = None) -> Verdict:
    return Verdict(
        rollout="r-1", stage=stage, evaluation=evaluation, gate=gate, decision=decision, reason="why", numbers=numbers or {},
        at_ms=NOW_MS - 5000,
    )  # fmt: skip


def an_event(
    detail: str, code: str = "", kind: str = "update", device: str = "gw-1", at_s: float = NOW, source: str = "device"
) -> Event:
    return Event(
        source=source, device=device, at_ms=int(at_s * 1000), received_ms=int(at_s * 1000), kind=kind, code=code, model="digits",
        version="1.1.0", rollout="r-1", attempt=1, detail=detail,
    )  # fmt: skip


def page_of(
    rollout: Rollout,
    *jobs: JobFacts,
    verdicts: tuple[Verdict, ...] = (),
    events: tuple[Event, ...] = (),
    audit: tuple[Audit, ...] = (),
):
    counts = Counter((one.job.stage, one.job.state) for one in jobs)
    return rollout_page(RolloutPageFacts(rollout, dict(counts), jobs, verdicts, events, audit), can_operate=True, now=NOW)


# words for states


def test_every_state_the_peers_know_has_words_of_its_own() -> None:
    assert all(state_badge(state).text for state in RolloutState)
    assert len({state_badge(state).text for state in RolloutState}) == len(RolloutState)
    assert all(status.job(state).note or status.job(state).tone != "idle" for state in JobState)
    for state in DeploymentState:
        assert status.installed(state, Outcome.SUCCEEDED).tone in ("busy", "ok", "bad")
    assert {status.installed("idle", outcome).text for outcome in Outcome} == {
        "Nothing installed", "Up to date", "Update refused", "Rolled back",
    }  # fmt: skip


def test_word_of_a_newer_peer_is_shown_without_a_claim() -> None:
    assert status.installed("teleporting", "strange_end") == status.Badge("Strange end", "idle")
    assert state_badge("") == status.Badge("Unknown", "idle")


# rollout


@pytest.mark.parametrize("state", RolloutState)
def test_buttons_are_exactly_what_the_transition_table_allows(state: RolloutState) -> None:
    actions = actions_of(a_rollout(state), STAGES, told=3, can_operate=True)
    enabled = {action.name for action in actions if not action.why_not}
    assert enabled == {event.value for event in OPERATOR_EVENTS if (state, event) in TRANSITIONS}
    refused = actions_of(a_rollout(state), STAGES, told=3, can_operate=False)
    assert [action.name for action in refused] == [action.name for action in actions]
    assert all(action.why_not for action in refused)


def test_questions_say_what_will_happen() -> None:
    asked = {
        action.name: action
        for action in actions_of(a_rollout(RolloutState.AWAITING_APPROVAL, 1), STAGES, told=3, can_operate=True)
    }
    assert "Stage 3 (100 %) begins at once" in asked["approve"].consequence
    assert "3 devices" in asked["rollback"].consequence
    last = actions_of(a_rollout(RolloutState.AWAITING_APPROVAL, 2), STAGES, told=1, can_operate=True)
    assert "the rollout is done" in next(action for action in last if action.name == "approve").consequence
    created = actions_of(a_rollout(RolloutState.CREATED), STAGES, told=0, can_operate=True)
    assert [action.title for action in created] == ["Start", "Cancel"]


@pytest.mark.parametrize(("state", "current", "texts"), [
    (RolloutState.CREATED, 0, ["Waiting", "Waiting", "Waiting"]),
    (RolloutState.UPDATING, 1, ["Passed", "Updating", "Waiting"]),
    (RolloutState.SOAKING, 0, ["Soaking", "Waiting", "Waiting"]),
    (RolloutState.AWAITING_APPROVAL, 1, ["Passed", "Needs approval", "Waiting"]),
    (RolloutState.PAUSED, 1, ["Passed", "Paused", "Waiting"]),
    (RolloutState.ROLLING_BACK, 1, ["Passed", "Stopped here", "Not reached"]),
    (RolloutState.ROLLED_BACK, 0, ["Stopped here", "Not reached", "Not reached"]),
    (RolloutState.DONE, 2, ["Passed", "Passed", "Passed"]),
])  # fmt: skip
def test_track(state: RolloutState, current: int, texts: list[str]) -> None:
    assert [stage_status(state, current, index).text for index in range(3)] == texts


def test_stage_tells_its_rule_its_soak_and_its_devices() -> None:
    page = page_of(
        a_rollout(RolloutState.SOAKING, 0, entered_s=45), a_job("gw-1", 0, JobState.SUCCEEDED), a_job("gw-2", 1, JobState.PENDING)
    )
    first, second, third = page.stages
    assert first.soak == pytest.approx(0.75)
    assert first.soak_text == "15 s of soak left"
    assert first.counts == "1 of 1 device updated"
    assert second.rule == "1 min soak, then approval"
    assert [chip.device for chip in second.devices] == ["gw-2"]
    assert third.rule == "no soak, then on"
    assert third.counts == "no further device"
    over = page_of(a_rollout(RolloutState.SOAKING, 0, entered_s=61))
    assert (over.stages[0].soak, over.stages[0].soak_text) == (1.0, "soak over, waits for the gates")


def test_stage_names_the_silent_devices_it_waits_for() -> None:
    jobs = (a_job("gw-1", 0, JobState.DISPATCHED, silent_s=300), a_job("gw-2", 0, JobState.SUCCEEDED, silent_s=300))
    page = page_of(a_rollout(RolloutState.UPDATING), *jobs)
    assert page.stages[0].waits == "waits for gw-1: offline, last seen 5 min ago"
    assert [row.step for row in page.jobs] == ["offline, last seen 5 min ago", ""]
    ended = page_of(a_rollout(RolloutState.ROLLED_BACK), a_job("gw-1", 0, JobState.PENDING, silent_s=300))
    assert ended.jobs[0].state.text == "Not told"
    assert ended.jobs[0].step == ""


def test_plan_of_a_newer_service_still_has_stages() -> None:
    rollout = a_rollout(RolloutState.UPDATING)
    rollout.plan = {"stages": [{"percent": 10, "ring": "inner"}, {}]}
    assert [stage.percent for stage in stages_of(rollout)] == [10, None]
    rollout.plan = {}
    assert page_of(rollout).stages[0].title == "100 %"


# gates and timeline


def test_gate_shows_before_and_after_in_its_own_unit() -> None:
    finding = Finding(device="gw-1", decision="fail", reason="slow", before=0.3, after=0.61, rows=1200)
    value = VerdictValue(gate="latency", decision="fail", reason="gw-1: slow", limit=1.5, failed=1, passed=2, findings=(finding,))
    verdict = a_verdict("latency", "fail", numbers=msgspec.to_builtins(value))
    (card,) = gate_cards([a_verdict("latency", "hold", 0), verdict], 0, NOW)
    assert (card.decision.tone, card.limit) == ("bad", "median at most 1.50 × before")
    assert (card.findings[0].before, card.findings[0].after, card.findings[0].rows) == ("300 µs", "610 µs", "1\u2009200")
    assert [moment.tone for moment in card.history] == ["warn", "bad"]
    assert card.counts == "2 pass, 1 fail"


def test_gates_come_in_their_order_and_an_unknown_one_last() -> None:
    rows = [a_verdict(name, "pass") for name in ("zeal", "confidence", "failed_updates")]
    cards = gate_cards(rows, 0, NOW)
    assert [card.title for card in cards] == ["Failed updates", "Confidence", "Zeal"]
    assert cards[2].limit == ""


def test_timeline_joins_what_many_devices_did_and_tells_trouble_once() -> None:
    events = [
        an_event(step, device=f"gw-{number}", at_s=NOW - 60 + number)
        for number in range(1, 13)
        for step in ("fetching", "verifying")
    ]
    events += [an_event("reporting: bad bytes", "artifact.digest", "update", "gw-3", NOW - 40)]
    events += [an_event("idle: bad bytes", "artifact.digest", "update", "gw-3", NOW - 39)]
    events += [an_event("digits 1.1.0: 1 of 1 devices run 1.1.0", kind="rollout.soaking", source="service", at_s=NOW - 30)]
    events += [an_event("digits 1.1.0: start by mara", kind="rollout.updating", source="service", at_s=NOW - 90)]
    audit = (Audit(at_ms=NOW_MS - 90_000, actor="mara", role="operator", action="rollout.start", object="r-1", detail={}),)
    entries = page_of(a_rollout(RolloutState.SOAKING), events=tuple(events), audit=audit).timeline
    assert [(entry.title, entry.code) for entry in entries] == [
        ("Soaking", ""), ("Update failed", "artifact.digest"), ("Update begins", ""), ("Started", ""),
    ]  # fmt: skip
    assert entries[0].detail == "1 of 1 devices run 1.1.0"
    assert (len(entries[2].named), entries[2].more) == (8, 4)


@pytest.mark.parametrize(("event", "title", "detail", "tone"), [
    (an_event("testing"), "Self-test", "", "busy"),
    (an_event("idle"), "Update ended", "", "ok"),
    (an_event("rolling_back: too slow", "probation.slow"), "Rolling back", "too slow", "bad"),
    (an_event("3 messages were dropped", "outbox.dropped", "outbox"), "Outbox", "3 messages were dropped", "bad"),
    (an_event("brightness", kind="drift.alarm"), "Drift alarm", "brightness", "idle"),
])  # fmt: skip
def test_events_in_words(event: Event, title: str, detail: str, tone: str) -> None:
    words = describe(event)
    assert (words.title, words.detail, words.tone) == (title, detail, tone)


# fleet


def test_versions_stand_newest_first_by_number_not_by_letter() -> None:
    (bar,) = version_bars([("digits", "1.9.0", 3), ("digits", "1.10.0", 1), ("digits", "1.10.0-rc.1", 1)])
    assert [(part.label, part.tone) for part in bar.segments] == [
        ("1.10.0", "series-1"), ("1.10.0-rc.1", "series-2"), ("1.9.0", "series-3"),
    ]  # fmt: skip
    assert bar.total == 5


@pytest.mark.parametrize(
    ("errors", "text", "tone"), [(0, "Healthy", "ok"), (9, "Some errors", "warn"), (10, "Failing", "bad"), (11, "Failing", "bad")]
)
def test_health_below_at_and_above_the_limit(errors: int, text: str, tone: str) -> None:
    badge, rate, _, latency = health_of([a_window(NOW - 60, 1000, errors)], NOW)
    assert (badge.text, badge.tone) == (text, tone)
    assert rate == "16.7/s"
    assert latency.endswith("µs")


def test_health_of_an_idle_a_silent_and_a_new_device() -> None:
    assert health_of([a_window(NOW - 60, 0)], NOW)[0].text == "Idle"
    assert health_of([a_window(NOW - 600)], NOW)[0].text == "Silent"
    assert health_of([], NOW) == (status.Badge("No windows", "idle"), "–", "–", "–")


def test_paging_and_filters_keep_the_search() -> None:
    device = Device(id="gw-1", labels={"b": "2", "a": "1"}, enrolled_ms=0, certificate_expires_ms=0)
    counts = {"": 120, "online": 100, "offline": 20, "updating": 0, "failed": 1, "drifting": 0}
    facts = OverviewFacts((DeviceFacts(device, None, (), (), {}),), 120, counts, (), (), 0, ())
    page = overview_page(facts, only="online", search="gw&1", page=2, now=NOW)
    assert page.paging.text == f"{PAGE + 1}–{2 * PAGE} of 120 devices"
    assert page.paging.previous == "/?only=online&q=gw%261"
    assert page.paging.following == "/?only=online&q=gw%261&page=3"
    assert [link.name for link in page.filters if link.current] == ["online"]
    assert page.devices[0].labels == (("a", "1"), ("b", "2"))
    assert page.devices[0].seen == "never"


@pytest.mark.parametrize(("alert", "href"), [
    (Alert(kind="drift", device="gw-1", rollout=None), "/devices/gw-1/drift"),
    (Alert(kind="rollout", device=None, rollout="r-1"), "/rollouts/r-1"),
    (Alert(kind="device", device="gw-1", rollout=None), "/devices/gw-1"),
    (Alert(kind="other", device=None, rollout=None), ""),
])  # fmt: skip
def test_alert_leads_to_where_it_can_be_dealt_with(alert: Alert, href: str) -> None:
    alert.id, alert.severity, alert.title, alert.opened_ms = 1, "warning", "t", NOW_MS
    assert alert_card(alert, NOW).href == href


# drift and windows


def a_stream(score: float, is_alarmed: bool = False) -> StreamDrift:
    return StreamDrift(
        name="brightness", kind="input", score=score, cause="distribution", distance=0.05, distance_limit=0.04, missing_ratio=0.0,
        out_of_range_ratio=0.0, is_alarmed=is_alarmed,
    )  # fmt: skip


def test_stream_states() -> None:
    assert stream_state(None).text == "Not judged"
    assert stream_state(a_stream(0.99)).tone == "ok"
    assert stream_state(a_stream(1.0)).tone == "warn"
    assert stream_state(a_stream(0.5, is_alarmed=True)).tone == "bad"


def test_drift_in_brief() -> None:
    row = Drift(
        device="gw-1", model="digits", sha256=DIGEST, state="alarm", rows=700, streams=[msgspec.to_builtins(a_stream(1.25, True))],
        at_ms=NOW_MS - 1000,
    )  # fmt: skip
    summary = drift_summary(row, NOW)
    assert (summary.top[0].name, summary.top[0].score) == ("brightness", "1.2 × limit")
    assert summary.top[0].place is not None
    assert drift_badge([row]) == status.Badge("Drift", "bad", "brightness")
    assert drift_badge([]).text == "Not judged"


def test_windows_become_charts_with_gaps_marks_and_cpu_from_a_counter() -> None:
    other = "b" * 64
    windows = [a_window(NOW - 600 + 60 * number, cpu_ms=600 * number) for number in range(4)]
    windows += [a_window(NOW - 120 + 60 * number, cpu_ms=600 * number, sha256=other, boot=2) for number in range(2)]
    plots = {plot.title: plot for plot in window_charts(windows, start=NOW - 900, end=NOW)}
    assert list(plots) == ["Requests", "Latency", "Failed requests", "CPU", "Memory of the daemon", "Widgets"]
    assert plots["Requests"].lines[0].path.count("M") == 2
    assert [mark.label for mark in plots["Requests"].marks] == ["switched to 1.0.0"]
    assert plots["CPU"].lines[0].last == "1 %"
    assert plots["Memory of the daemon"].lines[0].last == "64.0 MiB"
    assert plots["Widgets"].lines[0].last == "3"
