"""Whatever arrives, does the old version serve on and the fleet learn why?"""

import socket

import numpy as np
import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.deployment import Outcome, Settings
from runtime.contract.telemetry import Command
from runtime.contract.topics import Channel
from tests.support.artifacts import FEATURES, scores, write_artifact
from tests.support.fleet import event, result, settled
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)
FAIL_NEW = """
from runtime.backends.reference import ReferenceModel
from runtime.errors import InferenceError
real = ReferenceModel.infer
def infer(self, inputs):
    if abs(inputs["input"]).max() > 100:
        raise InferenceError("as if the engine broke")
    return real(self, inputs)
ReferenceModel.infer = infer
"""
FULL_DISK = """
from runtime.errors import StoreError
from runtime.update.store import Store
def begin_boot(self):
    raise StoreError("database or disk is full")
Store.begin_boot = begin_boot
"""


@pytest.fixture
def served(tmp_path, store, fleet, start_daemon):
    """A daemon with 1.0.0 committed; gives (daemon, device id, next generation's publisher)."""

    def start(device, prelude="", **settings):
        old = write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
        store.publish(tmp_path / "old")
        daemon = start_daemon(device, prelude, **settings)
        fleet.publish(device, Channel.DESIRED, store.seal(make_desired(device, 1, old)))
        fleet.wait(settled(device, old))
        return daemon, old

    return start


def still_serves(daemon, scale=1.0):
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, scale), rtol=1e-4, atol=1e-5)


def test_tampered_and_wrong_artifacts(tmp_path, store, fleet, served):
    daemon, old = served("refuser")
    tampered = write_artifact(tmp_path / "tampered", version="1.1.0", scale=2.0)
    store.publish(tmp_path / "tampered")
    digest = sha256_hex((tmp_path / "tampered" / "golden.npz").read_bytes())
    store.blobs[digest] = bytes([store.blobs[digest][0] ^ 1]) + store.blobs[digest][1:]
    fleet.publish("refuser", Channel.DESIRED, store.seal(make_desired("refuser", 2, tampered)))
    _, deployment = fleet.wait(settled("refuser", tampered, Outcome.REFUSED))
    assert (deployment.artifact, deployment.error_code) == (old, "trust.digest_mismatch")
    still_serves(daemon)

    wrong = write_artifact(tmp_path / "wrong", version="1.2.0", scale=3.0, golden_scale=4.0)
    store.publish(tmp_path / "wrong")
    fleet.publish("refuser", Channel.DESIRED, store.seal(make_desired("refuser", 3, wrong)))
    _, deployment = fleet.wait(settled("refuser", wrong, Outcome.REFUSED))
    assert (deployment.artifact, deployment.error_code) == (old, "update.self_test_failed")
    still_serves(daemon)

    unlisted = write_artifact(tmp_path / "unlisted", version="1.3.0", scale=5.0)
    fleet.publish("refuser", Channel.DESIRED, store.seal(make_desired("refuser", 4, unlisted)))
    _, deployment = fleet.wait(settled("refuser", unlisted, Outcome.REFUSED))
    assert deployment.error_code == "trust.unlisted"
    still_serves(daemon)


def test_messages_that_cannot_be_believed(tmp_path, store, fleet, served):
    daemon, old = served("doubter")
    for payload in (b"\xc1", b"x" * 20_000):
        fleet.publish("doubter", Channel.DESIRED, payload)
    assert fleet.wait(event("doubter", "contract.malformed"))
    assert fleet.wait(event("doubter", "contract.too_large"))
    fleet.publish("doubter", Channel.DESIRED, store.seal(make_desired("doubter", 1, old, rollout="other-body")))
    assert fleet.wait(event("doubter", "trust.rollback"))
    fleet.publish("doubter", Channel.DESIRED, store.seal(make_desired("other", 2, old)))
    assert fleet.wait(event("doubter", "trust.wrong_device"))
    still_serves(daemon)

    newer = write_artifact(tmp_path / "newer", version="1.1.0", scale=2.0)
    store.publish(tmp_path / "newer")
    fleet.publish("doubter", Channel.DESIRED, store.seal(make_desired("doubter", 2, newer, expires_in_s=-1)))
    _, deployment = fleet.wait(
        lambda *message: (found := settled("doubter", old)(*message)) and found[1].error_code == "trust.expired" and found
    )
    assert deployment.artifact == old
    still_serves(daemon)
    fleet.publish("doubter", Channel.DESIRED, store.seal(make_desired("doubter", 3, newer)))
    fleet.wait(settled("doubter", newer))
    still_serves(daemon, 2.0)


def test_a_version_that_fails_live_is_rolled_back(tmp_path, store, fleet, served):
    daemon, old = served("prober", FAIL_NEW, **{"serving.isolation": "never"})  # the fault is in the daemon's own process
    newer = write_artifact(tmp_path / "newer", version="1.1.0", scale=2.0)
    store.publish(tmp_path / "newer")
    settings = Settings(window_s=1, probation_s=600)
    fleet.publish("prober", Channel.DESIRED, store.seal(make_desired("prober", 2, newer, settings=settings)))
    daemon.wait_until(lambda: daemon.job().state == "probation", "probation")
    for _ in range(25):
        with pytest.raises(LookupError):
            daemon.infer(ROWS * 1000)
    _, deployment = fleet.wait(settled("prober", newer, Outcome.ROLLED_BACK))
    assert (deployment.artifact, deployment.error_code) == (old, "update.probation_failed")
    still_serves(daemon)


def test_commands(store, fleet, served):
    daemon, _ = served("obeyer")
    expires = 2_000_000_000

    def ask(id, kind, **options):
        sealed = store.seal_command(Command(device="obeyer", id=id, kind=kind, options=options, expires=expires))
        fleet.publish("obeyer", Channel.COMMAND, sealed, id)
        return fleet.wait(result("obeyer", id))

    assert b"generation 1 accepted" in ask("tail", "log_tail", lines=100).body
    assert b"p50_ns" in ask("bench", "benchmark", model="tiny").body
    assert ask("raw", "sample").code == "command.unknown"
    pid = daemon.pid
    assert ask("again", "restart").code == ""
    daemon.wait_until(lambda: "start 2 serves tiny" in daemon.log(), "the second start")
    daemon.wait_until(lambda: daemon.infer(ROWS) is not None, "serving again")
    assert daemon.pid == pid  # the same process, made anew
    still_serves(daemon)


def test_a_damaged_database_a_full_disk_and_a_taken_port_at_the_start(fleet, served):
    daemon, _ = served("survivor")
    daemon.stop()
    (daemon.state_dir / "state.db").write_bytes(b"no database" * 1000)
    daemon.start()
    assert fleet.wait(event("survivor", "store.damaged"))
    still_serves(daemon)
    daemon.stop()

    daemon.start(FULL_DISK)
    daemon.wait_until(lambda: daemon.infer(ROWS) is not None, "serving without a count")
    still_serves(daemon)
    daemon.stop()

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", daemon.port))
        taken.listen()
        assert daemon.start().wait_for_end() == 2
    daemon.start()
    daemon.wait_until(lambda: daemon.infer(ROWS) is not None, "serving again")
