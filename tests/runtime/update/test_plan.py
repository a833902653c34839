"""What should a device do about a desired state, given what it has and how its last updates ended?"""

import msgspec
import pytest

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import Deployment, Desired, Outcome
from runtime.contract.deployment import DeploymentState as S
from runtime.update.machine import Job
from runtime.update.plan import HoldBack, Present, Record, Retire, Share, Start, Supersede, plan

OLD = ArtifactRef(version="1.0.0", target="t", sha256="0" * 64)
NEW = ArtifactRef(version="1.1.0", target="t", sha256="1" * 64)
HERE = {"digits": Present("a", OLD)}
NOW = 1000.0


def desired(artifact=NEW, generation=5, expires=2000, **changes):
    deployment = Deployment(**({"model": "digits", "artifact": artifact, "rollout": "r1"} | changes))
    return Desired(device="d", generation=generation, issued_at=0, expires=expires, deployments=(deployment,))


def job(artifact=NEW, **changes):
    fields = {"model": "digits", "artifact": artifact, "rollout": "r1", "generation": 5, "slot": "b", "previous": "a"}
    return Job(**(fields | changes))


def only(decisions):
    assert len(decisions) == 1
    return decisions[0]


def test_a_new_artifact_starts_an_update_into_the_other_slot():
    decision = only(plan(desired(), {}, HERE, NOW))
    assert isinstance(decision, Start)
    assert (decision.job.slot, decision.job.previous, decision.job.generation, decision.job.rollout) == ("b", "a", 5, "r1")


def test_the_first_artifact_has_nothing_to_go_back_to():
    decision = only(plan(desired(), {}, {}, NOW))
    assert (decision.job.slot, decision.job.previous) == ("a", None)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.ROLLED_BACK])
@pytest.mark.parametrize(
    ("name", "generation", "rollout", "attempt", "retries"),
    [
        ("same", 5, "r1", 1, False),
        ("re-issued under a higher generation", 6, "r1", 1, False),
        ("higher attempt", 6, "r1", 2, True),
        ("lower attempt", 6, "r1", 0, False),
        ("another rollout", 6, "r2", 0, True),
    ],
)
def test_a_failure_is_settled_until_another_rollout_or_a_higher_attempt(outcome, name, generation, rollout, attempt, retries):
    failed = job(outcome=outcome, rollout="r1", attempt=1)
    decisions = plan(desired(generation=generation, rollout=rollout, attempt=attempt), {"digits": failed}, HERE, NOW)
    assert bool(decisions) is retries


def test_what_serves_already_is_recorded_as_done_once():
    decision = only(plan(desired(OLD), {}, HERE, NOW))
    assert isinstance(decision, Record)
    assert (decision.job.outcome, decision.job.slot) == (Outcome.SUCCEEDED, "a")
    assert plan(desired(OLD), {"digits": decision.job}, HERE, NOW) == []


def test_going_back_to_what_serves_settles_a_failed_update():
    failed = job(outcome=Outcome.ROLLED_BACK, error_code="update.probation_failed")
    decision = only(plan(desired(OLD, generation=6, rollout="r1"), {"digits": failed}, HERE, NOW))
    assert isinstance(decision, Record)
    assert decision.job.error_code == ""


def test_an_update_under_way_for_what_is_wanted_just_goes_on():
    assert plan(desired(), {"digits": job(state=S.TESTING)}, HERE, NOW) == []


def test_an_update_under_way_takes_over_the_job_it_now_serves():
    decision = only(plan(desired(generation=6, rollout="r2", attempt=3), {"digits": job(state=S.TESTING)}, HERE, NOW))
    assert isinstance(decision, Record)
    assert (decision.job.state, decision.job.rollout, decision.job.attempt) == (S.TESTING, "r2", 3)


@pytest.mark.parametrize("state", [S.ROLLING_BACK, S.REPORTING])
def test_an_update_that_failed_ends_before_the_same_is_tried_again(state):
    failed = job(state=state, outcome=Outcome.ROLLED_BACK)
    assert plan(desired(generation=6, rollout="r2"), {"digits": failed}, HERE, NOW) == []
    ended = msgspec.structs.replace(failed, state=S.IDLE)
    assert isinstance(only(plan(desired(generation=6, rollout="r2"), {"digits": ended}, HERE, NOW)), Start)


def test_an_update_under_way_for_something_else_is_superseded():
    decision = only(plan(desired(OLD, generation=6), {"digits": job(state=S.PROBATION)}, {"digits": Present("b", NEW)}, NOW))
    assert isinstance(decision, Supersede)


@pytest.mark.parametrize(("now", "held_back"), [(1999.0, False), (2000.0, True), (2001.0, True)])
def test_expiry_stops_the_start_of_an_update_only(now, held_back):
    decision = only(plan(desired(), {}, HERE, now))
    assert isinstance(decision, HoldBack if held_back else Start)
    if held_back:
        assert decision.code == "trust.expired"
    assert plan(desired(), {"digits": job(state=S.FETCHING)}, HERE, now) == []


@pytest.mark.parametrize(("not_before", "waits"), [(999, False), (1000, False), (1001, True)])
def test_not_before(not_before, waits):
    decision = only(plan(desired(not_before=not_before), {}, HERE, NOW))
    assert isinstance(decision, HoldBack if waits else Start)
    if waits:
        assert (decision.code, decision.until_s) == ("", 1001)


def test_nothing_starts_before_the_clock_is_set():
    decision = only(plan(desired(), {}, HERE, NOW, is_clock_synced=False))
    assert isinstance(decision, HoldBack)


def test_what_this_version_cannot_deploy_is_refused_aloud():
    decision = only(plan(desired(kind="firmware"), {}, HERE, NOW))
    assert isinstance(decision, Record)
    assert (decision.job.outcome, decision.job.error_code) == (Outcome.REFUSED, "update.unsuitable")
    assert plan(desired(kind="firmware"), {"digits": decision.job}, HERE, NOW) == []


SHADOW = {"digits+shadow": Present("a", NEW)}


@pytest.mark.parametrize("role", ["shadow", "split"])
def test_a_second_model_goes_into_a_lane_of_its_own(role):
    wanted = desired(OLD).deployments + desired(role=role, share=500).deployments
    both = msgspec.structs.replace(desired(), deployments=wanted[::-1])
    here, beside = plan(both, {}, HERE, NOW)
    assert isinstance(here, Record)
    assert isinstance(beside, Start)
    assert (beside.job.lane, beside.job.slot, beside.job.previous, beside.job.share) == (f"digits+{role}", "a", None, 500)


@pytest.mark.parametrize("role", ["shadow", "split"])
def test_a_second_model_waits_for_an_active_one(role):
    decision = only(plan(desired(role=role), {}, {}, NOW))
    assert (decision.lane, decision.code) == (f"digits+{role}", "update.no_active")
    assert isinstance(only(plan(desired(role=role), {}, HERE, NOW)), Start)


def test_another_share_needs_no_download():
    done = job(role="shadow", share=500, slot="a", previous=None, outcome=Outcome.SUCCEEDED)
    wanted = desired(role="shadow", share=500)
    assert plan(wanted, {"digits+shadow": done}, HERE | SHADOW, NOW) == []
    decision = only(plan(desired(role="shadow", share=900), {"digits+shadow": done}, HERE | SHADOW, NOW))
    assert isinstance(decision, Share)
    assert (decision.job.share, decision.job.outcome, decision.job.slot) == (900, Outcome.SUCCEEDED, "a")
    running = job(role="shadow", share=500, state=S.FETCHING)
    decision = only(plan(desired(role="shadow", share=900), {"digits+shadow": running}, HERE, NOW))
    assert isinstance(decision, Share)
    assert (decision.job.share, decision.job.state) == (900, S.FETCHING)


def test_a_second_model_no_longer_named_goes_alone():
    jobs = {"digits": job(OLD, outcome=Outcome.SUCCEEDED), "digits+shadow": job(role="shadow", outcome=Outcome.SUCCEEDED)}
    assert only(plan(desired(OLD), jobs, HERE | SHADOW, NOW)) == Retire("digits+shadow")
    assert only(plan(desired(OLD), {"digits": jobs["digits"]}, HERE | SHADOW, NOW)) == Retire("digits+shadow")


def test_what_was_side_loaded_since_stands_until_the_fleet_speaks_again():
    side = job(OLD, generation=0, source="/stick.edge", over=5, state=S.PROBATION)
    assert plan(desired(), {"digits": side}, HERE, NOW) == []
    done = msgspec.structs.replace(side, state=S.IDLE, outcome=Outcome.SUCCEEDED)
    assert plan(desired(), {"digits": done}, HERE, NOW) == []
    assert isinstance(only(plan(desired(generation=6), {"digits": done}, HERE, NOW)), Start)
    assert isinstance(only(plan(desired(generation=6), {"digits": side}, HERE, NOW)), Supersede)
    failed = msgspec.structs.replace(done, outcome=Outcome.ROLLED_BACK)
    assert isinstance(only(plan(desired(), {"digits": failed}, HERE, NOW)), Start)


def test_a_model_that_is_no_longer_named_is_retired_unless_it_was_side_loaded():
    nothing = Desired(device="d", generation=6, issued_at=0, expires=2000)
    done = job(OLD, outcome=Outcome.SUCCEEDED)
    assert only(plan(nothing, {"digits": done}, HERE, NOW)) == Retire("digits")
    assert only(plan(nothing, {"digits": done}, {}, NOW)) == Retire("digits")  # cut short between its slots and its job
    assert plan(nothing, {"digits": job(OLD, outcome=Outcome.SUCCEEDED, generation=0)}, HERE, NOW) == []
    assert plan(nothing, {}, HERE, NOW) == []
    assert isinstance(only(plan(nothing, {"digits": job(state=S.TESTING)}, HERE, NOW)), Supersede)
    assert plan(nothing, {"digits": job(outcome=Outcome.REFUSED)}, {}, NOW) == []
