"""Do serving and its threads run on the CPUs they were given, and nothing else?"""

import os
import sys
import threading

import pytest

from runtime.config import Config
from runtime.daemon import Daemon
from runtime.errors import ConfigError
from runtime.serving.affinity import Affinity
from runtime.serving.limits import ServingSettings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux binds threads to CPUs")


@pytest.fixture
def usable():
    """The CPUs of this process; the calling thread is as before after the test."""
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


def cpus_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    return found[0]


def test_a_bound_thread_hands_its_cpus_on_until_it_lets_go(usable):
    affinity = Affinity(usable[:1])
    affinity.bind()
    assert cpus_of_a_new_thread() == {usable[0]}
    affinity.release()
    assert cpus_of_a_new_thread() == set(usable)


def test_work_done_bound_leaves_the_calling_thread_as_it_was(usable):
    affinity = Affinity(usable[-1:])
    assert affinity.bound(cpus_of_a_new_thread) == {usable[-1]}
    assert os.sched_getaffinity(0) == set(usable)
    with pytest.raises(ZeroDivisionError):
        affinity.bound(lambda: 1 / 0)
    assert os.sched_getaffinity(0) == set(usable)


def test_no_cpus_given_binds_nothing(usable):
    affinity = Affinity(())
    affinity.bind()
    assert affinity.bound(cpus_of_a_new_thread) == set(usable)


def test_a_cpu_that_is_not_there_is_refused_before_anything_starts(tmp_path, usable):
    with pytest.raises(ConfigError, match=r"no CPU 4096 for this process; choose among"):
        Affinity([usable[0], 4096])
    with pytest.raises(ConfigError, match="4096"):
        Daemon(Config(serving=ServingSettings(cpus=(4096,))), [])
    assert not (tmp_path / "state.db").exists()
