"""Does a shadow see its share, say truly how far it agrees, and keep nobody waiting?"""

import os
import sys
import threading
import time

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.contract.artifact import TensorSpec
from runtime.contract.deployment import SHARE_WHOLE
from runtime.contract.telemetry import Agreement
from runtime.errors import EngineCrashedError, ModelNotFoundError
from runtime.monitor.monitor import Monitor, MonitorLimits
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository, open_artifact
from runtime.serving.models.shadow import Shadow, ShadowSettings, at_lowest_priority, monitor_limits
from tests.runtime.serving.conftest import weights, write_artifact
from tests.runtime.serving.models.test_repository import ROWS


def eventually(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def active(artifact):
    served = open_artifact(artifact)
    yield served
    served.retire()


@pytest.fixture
def make_shadow(tmp_path):
    """Shadows without their thread: `run_some` is called by the test."""
    made = []

    def make(share=SHARE_WHOLE, noise=0.0, settings=None, **changes):
        directory = write_artifact(tmp_path / f"shadow-{len(made)}", version="2.0.0", noise=noise, **changes)
        made.append(Shadow(open_artifact(directory, "shadow", share=share), settings or ShadowSettings()))
        return made[-1]

    yield make
    for shadow in made:
        shadow.close()
        shadow.served.retire()


def ask(active, shadow, rows):
    """A live request, and what the repository does with it."""
    inputs = {"input": rows}
    outputs = active.infer(inputs)
    shadow.offer(active, inputs, outputs, len(rows))
    return outputs["output"]


def drain(shadow):
    while shadow.queued:
        shadow.run_some()


def test_agreement_at_a_tenth_is_within_one_percent_of_the_truth(active, make_shadow):
    """100,000 requests, one in ten sampled. The truth is what both versions say of every one of them."""
    shadow = make_shadow(share=1000, noise=0.3, settings=ShadowSettings(waiting_rows=100_000, waiting_bytes=1 << 30))
    inputs = np.random.default_rng(5).normal(size=(100_000, 1, 4)).astype(np.float32)
    for one in inputs:
        ask(active, shadow, one)
    drain(shadow)
    flat = inputs[:, 0]
    truth = np.mean((flat @ weights()[0]).argmax(axis=1) == (flat @ weights(noise=0.3)[0]).argmax(axis=1))
    told = shadow.take()
    assert told.sampled == told.compared == 10_000
    assert 0.5 < truth < 0.97  # a truth of 1 would be no test
    assert abs(told.agreed / told.compared - truth) < 0.01


def test_the_same_model_agrees_with_itself_joined_or_alone(active, make_shadow):
    shadow = make_shadow(settings=ShadowSettings(joined_rows=8))
    for rows in (1, 3, 2, 8, 9, 1, 1):
        ask(active, shadow, np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32))
    drain(shadow)
    assert shadow.take() == Agreement(sampled=25, compared=25, agreed=25)
    assert shadow.take() == Agreement()
    assert shadow.totals().compared == 25


def test_requests_and_latency_count_runs_of_single_requests_and_rows_count_all(active, make_shadow):
    shadow = make_shadow(settings=ShadowSettings(joined_rows=8))
    for _ in range(9):
        ask(active, shadow, ROWS["input"][:1])
    shadow.run_some()  # the first alone
    shadow.run_some()  # the rest joined
    assert shadow.queued == 0
    window = shadow.served.monitor.take()
    assert (window.requests, sum(window.latency.values()), window.rows) == (1, 1, 9)


def test_one_run_in_eight_is_of_one_sample_while_many_wait(active, make_shadow):
    shadow = make_shadow(settings=ShadowSettings(joined_rows=2))
    for _ in range(32):
        ask(active, shadow, ROWS["input"][:1])
    compared = []
    for _ in range(17):
        before = shadow.totals().compared
        shadow.run_some()
        compared.append(shadow.totals().compared - before)
    assert compared == [1, *[2] * 7] * 2 + [1]


def test_what_a_full_queue_has_no_room_for_is_dropped_and_counted(active, make_shadow):
    shadow = make_shadow(settings=ShadowSettings(waiting_rows=4))
    for _ in range(5):
        ask(active, shadow, ROWS["input"])
    assert shadow.queued == 4
    drain(shadow)
    assert shadow.take() == Agreement(sampled=10, compared=4, agreed=4, dropped=6)


def test_a_queue_is_bounded_in_bytes_but_takes_one_request_whatever_its_size(active, make_shadow):
    shadow = make_shadow(settings=ShadowSettings(waiting_bytes=10))
    for _ in range(2):
        ask(active, shadow, ROWS["input"])
    assert shadow.queued == 2
    drain(shadow)
    assert shadow.take() == Agreement(sampled=4, compared=2, agreed=2, dropped=2)


def test_a_request_of_many_examples_is_dropped_no_sooner_than_one_of_few(active, make_shadow):
    shadow = make_shadow(settings=ShadowSettings(waiting_rows=4))
    ask(active, shadow, ROWS["input"])
    ask(active, shadow, np.zeros((9, 4), np.float32))
    ask(active, shadow, ROWS["input"][:1])
    assert shadow.queued == 11
    drain(shadow)
    assert shadow.take() == Agreement(sampled=12, compared=11, agreed=11, dropped=1)


def test_samples_are_copies(active, make_shadow):
    shadow = make_shadow()
    rows = ROWS["input"].copy()
    answer = ask(active, shadow, rows)
    rows[:] = np.nan
    answer[:] = np.nan
    drain(shadow)
    assert shadow.take().agreed == 2


def test_requests_not_sampled_are_not_copied(active, make_shadow):
    class Untouchable(np.ndarray):
        def copy(self, *_):
            raise AssertionError("copied")

    shadow = make_shadow(share=0)
    inputs = {"input": ROWS["input"].view(Untouchable)}
    shadow.offer(active, inputs, inputs, 2)
    assert shadow.take() == Agreement()


def test_a_shadow_that_takes_other_inputs_fails_and_says_so(active, make_shadow, caplog):
    layers = (TensorSpec(name="input", datatype="FP32", shape=(1, 4), labels=("a", "b", "c", "d")),)
    shadow = make_shadow(inputs=layers)
    for _ in range(3):
        ask(active, shadow, ROWS["input"])
    drain(shadow)
    assert shadow.take() == Agreement(sampled=6, failed=6)
    assert caplog.text.count("gives no answer") == 1


class Crashing:
    def __init__(self, inner):
        self.inputs, self.outputs = inner.inputs, inner.outputs

    def infer(self, _inputs):
        raise EngineCrashedError("gone")

    def close(self):
        pass


def test_a_shadow_that_crashes_in_its_process_is_broken_and_its_samples_failed(active, artifact):
    model = Crashing(get_backend("reference").load(artifact / "model.npz", {}))
    served = ServedModel(active.manifest, active.artifact, model, Monitor(active.manifest), "shadow")
    shadow = Shadow(served)
    ask(active, shadow, ROWS["input"])
    drain(shadow)
    assert shadow.take() == Agreement(sampled=2, failed=2)
    assert served.health()[:2] == (1, 1)
    assert served.health().failure.startswith("engine.crashed")


def test_what_waits_when_a_shadow_ends_counts_as_dropped(active, make_shadow):
    shadow = make_shadow()
    ask(active, shadow, ROWS["input"])
    shadow.close()
    ask(active, shadow, ROWS["input"])
    assert shadow.take() == Agreement(sampled=4, dropped=4)
    shadow.run_some()
    assert shadow.take() == Agreement()


def test_what_is_dropped_does_not_depend_on_what_it_says(active, make_shadow):
    """A full queue takes what comes when there is room again, whatever it is: agreeing and disagreeing samples drop alike.

    120,000 requests, a tenth sampled, and room for a twentieth of those: the share that agrees among the compared is
    that among all sampled, within four standard errors of so few.
    """
    shadow = make_shadow(share=1000, noise=0.3)
    inputs = np.random.default_rng(6).normal(size=(120_000, 1, 4)).astype(np.float32)
    for index, one in enumerate(inputs):
        ask(active, shadow, one)
        if index % 6000 == 5999:
            shadow.run_some()
    told = shadow.take()
    flat = inputs[:, 0]
    truth = np.mean((flat @ weights()[0]).argmax(axis=1) == (flat @ weights(noise=0.3)[0]).argmax(axis=1))
    assert told.dropped > 10 * told.compared > 1000
    assert abs(told.agreed / told.compared - truth) < 4 * np.sqrt(truth * (1 - truth) / told.compared)


def test_a_shadow_is_watched_less_closely_than_what_answers():
    limits = monitor_limits(None)
    assert limits.rows_per_window < MonitorLimits().rows_per_window
    assert limits.cpu_permille < MonitorLimits().cpu_permille
    assert monitor_limits(MonitorLimits(rows_per_window=7)).rows_per_window == 7


@pytest.fixture
def shadowed(repository, tmp_path):
    write_artifact(tmp_path / "beside", version="2.0.0", noise=0.3)
    repository.switch(repository.open(tmp_path / "beside", "shadow", 5000))
    return repository


def test_a_shadow_runs_beside_live_traffic_and_answers_nobody(shadowed):
    answers = {shadowed.infer("tiny", ROWS)[0].artifact.version for _ in range(100)}
    assert answers == {"1.0.0"}
    with pytest.raises(ModelNotFoundError):
        shadowed.infer("tiny", ROWS, "2.0.0")
    (shadow,) = shadowed.shadows()
    eventually(lambda: shadow.totals().sampled == 100)  # 2 rows in each of 50, more than may wait at once
    told = shadow.served.agreement()
    assert told.compared >= ShadowSettings().waiting_rows
    assert told.compared + told.dropped == 100
    assert shadowed.health("tiny").requests == 100
    assert 0 < shadowed.health("tiny", "shadow").requests <= 50


def test_a_shadow_outlives_its_active_version_and_ends_when_retired(shadowed, tmp_path):
    (shadow,) = shadowed.shadows()
    shadowed.switch(shadowed.open(write_artifact(tmp_path / "newer", version="3.0.0")))
    assert shadowed.shadows() == (shadow,)
    for _ in range(4):
        shadowed.infer("tiny", ROWS)
    eventually(lambda: shadow.totals().compared == 4)
    served = shadowed.retire("tiny", "shadow")
    assert (served, shadowed.shadows()) == (shadow.served, ())
    assert shadowed.get("tiny").mirror is None
    shadow._thread.join(20)
    assert not shadow._thread.is_alive()


def test_a_shadow_that_hangs_holds_up_no_live_request(repository, artifact):
    go_on = threading.Event()

    class Hanging(Crashing):
        def infer(self, inputs):
            assert go_on.wait(30)
            return get_backend("reference").load(artifact / "model.npz", {}).infer(inputs)

    manifest = repository.get("tiny").manifest
    model = Hanging(get_backend("reference").load(artifact / "model.npz", {}))
    served = ServedModel(manifest, repository.artifact("tiny"), model, Monitor(manifest), "shadow")
    repository.switch(served)
    repository.infer("tiny", ROWS)
    eventually(lambda: served.stuck_s() > 0.01)
    for _ in range(2000):
        repository.infer("tiny", ROWS)
    assert repository.health("tiny").requests == 2001
    (shadow,) = repository.shadows()
    assert shadow.queued <= ShadowSettings().waiting_rows
    assert shadow.totals().dropped > 0
    go_on.set()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has priorities for threads")
def test_a_shadow_and_its_engine_s_threads_have_the_lowest_priority(shadowed):
    (shadow,) = shadowed.shadows()
    eventually(lambda: shadow._thread.native_id is not None)
    eventually(lambda: os.getpriority(os.PRIO_PROCESS, shadow._thread.native_id) == 19)
    assert at_lowest_priority(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == 19
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    with pytest.raises(ZeroDivisionError):
        at_lowest_priority(lambda: 1 / 0)


def test_the_cpu_budget_is_kept(active, tmp_path):
    """Each round costs what the injected clock says: at 100 permille, ten times as long passes in all."""
    directory = write_artifact(tmp_path / "costly", version="2.0.0")
    spent = iter(range(10**6))
    settings = ShadowSettings(cpu_permille=100, joined_rows=1)
    shadow = Shadow(open_artifact(directory, "shadow"), settings, cpu_s=lambda: next(spent) * 0.01)
    for _ in range(5):
        ask(active, shadow, ROWS["input"])
    started = time.monotonic()
    shadow.start()
    eventually(lambda: shadow.totals().compared == 10)
    # 5 rounds of 10 ms CPU: 90 ms of rest behind each but the last, and 20 ms before the first.
    assert time.monotonic() - started > 4 * 0.09
    shadow.close()
    shadow.served.retire()


def test_repository_close_ends_shadows(artifact, tmp_path):
    repository = Repository()
    repository.switch(repository.open(artifact))
    repository.switch(repository.open(write_artifact(tmp_path / "b", version="2.0.0"), "shadow"))
    (shadow,) = repository.shadows()
    repository.close()
    shadow._thread.join(20)
    assert not shadow._thread.is_alive()
