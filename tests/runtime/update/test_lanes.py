"""Do shadows and splits come, serve, change and go in lanes of their own, whatever becomes of them?"""

import numpy as np
import pytest

from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import Deployment, Desired, Outcome, Settings
from runtime.contract.deployment import DeploymentState as S
from runtime.errors import EngineCrashedError
from runtime.update.requests import Task
from runtime.update.store import Held
from tests.runtime.update.conftest import direct
from tests.support.artifacts import FEATURES, scores, write_artifact

NOW = 1_790_000_000
ROWS = np.random.default_rng(5).normal(size=(4, FEATURES)).astype(np.float32)


@pytest.fixture
def wish(device):
    """Hold a desired state that names (artifact, role, share) of the model tiny; releases come from the bundle."""
    device.fetches = 0

    def from_bundle(task, request, timeout_s):
        if task is Task.FETCH:
            device.fetches += 1
            fields = {name: getattr(request, name) for name in request.__struct_fields__}
            request = type(request)(**fields | {"source": str(device.bundle)})
        return direct(task, request, timeout_s)

    device.delegate = from_bundle

    def hold(generation, *wanted, attempt=0):
        deployments = tuple(
            Deployment(model="tiny", artifact=artifact, role=role, share=share, rollout="r", attempt=attempt)
            for artifact, role, share in wanted
        )
        desired = Desired(device="dev", generation=generation, issued_at=NOW, expires=2**40, deployments=deployments)
        device.store.hold(Held(b"", write_message(desired, DESIRED_LIMIT)))

    return hold


@pytest.fixture
def versions(device, tmp_path):
    for number, name in enumerate("123", 1):
        write_artifact(tmp_path / name, version=f"1.{number}.0", scale=float(number), rollback_floor=f"1.{number}.0")
    return [device.publish(tmp_path / name) for name in "123"]


def converge(device, rounds=40):
    for _ in range(rounds):
        device.updater.once()
    return device.store.jobs()


def serving(device):
    return {served.role: (served.artifact, served.share) for served in device.repository.models()}


@pytest.mark.parametrize("role", ["shadow", "split"])
def test_a_second_version_serves_beside_the_active_one_and_goes_again(device, wish, versions, role):
    wish(1, (versions[0], "active", 10_000), (versions[1], role, 500))
    jobs = converge(device)
    assert serving(device) == {"active": (versions[0], 10_000), role: (versions[1], 500)}
    assert {lane: job.outcome for lane, job in jobs.items()} == dict.fromkeys(("tiny", f"tiny+{role}"), Outcome.SUCCEEDED)
    assert device.store.floor("tiny") == "1.1.0", "only what answers raises the floor"

    device.store.end_boot()
    device.close()
    device.start()
    assert serving(device) == {"active": (versions[0], 10_000), role: (versions[1], 500)}

    fetches = device.fetches
    wish(2, (versions[0], "active", 10_000), (versions[1], role, 900))
    converge(device)
    assert serving(device)[role] == (versions[1], 900)
    assert device.fetches == fetches

    wish(3, (versions[0], "active", 10_000))
    assert set(converge(device)) == {"tiny"}
    assert serving(device) == {"active": (versions[0], 10_000)}
    assert versions[1].sha256 not in {path.name for path in device.slots.blobs.iterdir()}


def test_a_second_version_waits_for_an_active_one_and_says_so(device, wish, versions):
    wish(1, (versions[1], "shadow", 500))
    assert converge(device) == {}
    assert device.updater.held_back["tiny+shadow"].code == "update.no_active"
    wish(2, (versions[0], "active", 10_000), (versions[1], "shadow", 500))
    converge(device)
    assert device.updater.held_back == {}
    assert serving(device)["shadow"] == (versions[1], 500)


def fail_shadow(device, how):
    served = next(one for one in device.repository.models() if one.role == "shadow")
    if how == "crash":
        served.failure = f"{EngineCrashedError.code}: as if its process had ended"
    else:
        for _ in range(30):
            served.monitor.observe_error()


@pytest.mark.parametrize("how", ["errors", "crash"])
def test_a_failing_shadow_goes_alone_and_its_predecessor_comes_back(device, wish, versions, how):
    wish(1, (versions[0], "active", 10_000), (versions[1], "shadow", 500))
    converge(device)
    live = device.repository.get("tiny")
    device.settings = Settings(probation_s=3600)
    wish(2, (versions[0], "active", 10_000), (versions[2], "shadow", 500))
    assert converge(device)["tiny+shadow"].state is S.PROBATION
    fail_shadow(device, how)
    device.updater._due_s.clear()  # as if the next look were due
    job = converge(device)["tiny+shadow"]
    assert (job.outcome, job.error_code) == (Outcome.ROLLED_BACK, "update.probation_failed")
    assert serving(device) == {"active": (versions[0], 10_000), "shadow": (versions[1], 500)}
    assert device.repository.get("tiny") is live, "the live version was not even opened anew"
    np.testing.assert_allclose(live.infer({"input": ROWS})["output"], scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)


def test_a_lost_database_leaves_no_shadow_behind_and_gives_none_a_share_of_its_own(device, wish, versions):
    wish(1, (versions[0], "active", 10_000), (versions[1], "shadow", 500))
    converge(device)
    device.close()
    (device.state_dir / "state.db").write_bytes(b"no database" * 1000)
    device.start()
    assert serving(device) == {"active": (versions[0], 10_000)}
    wish(2, (versions[0], "active", 10_000), (versions[1], "shadow", 700))
    converge(device)
    assert serving(device)["shadow"] == (versions[1], 700)


def test_an_active_update_and_a_shadows_do_not_meet(device, wish, versions):
    wish(1, (versions[0], "active", 10_000), (versions[1], "shadow", 500))
    converge(device)
    wish(2, (versions[1], "active", 10_000), (versions[2], "shadow", 500))
    jobs = converge(device)
    assert {job.outcome for job in jobs.values()} == {Outcome.SUCCEEDED}
    assert serving(device) == {"active": (versions[1], 10_000), "shadow": (versions[2], 500)}
