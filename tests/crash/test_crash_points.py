"""Does a device survive being struck at durable steps of real updates? A few of the points each day, many in the long suite."""

import datetime
import shutil

import pytest

from benchmarks.crash_points.paths import NEW, OLD, PATHS, Bench, Ending, UpdatePath
from benchmarks.crash_points.pool import strike_all
from benchmarks.crash_points.strikes import Fault, Striker, can_mount
from benchmarks.crash_points.walk import Part
from runtime.contract.deployment import Outcome

LEAST_POINTS = 200
EVERYDAY = 2
"""Strikes per fault in the everyday suite: other points every day, for the choice goes by the date."""

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")


@pytest.fixture(scope="module")
def striker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crash")
    bench = Bench(folder, (*PATHS, CLUMSY))
    yield Striker(bench, folder)
    bench.close()


@pytest.fixture
def mountable(tmp_path):
    if reason := can_mount(tmp_path):
        pytest.skip(f"power cuts: {reason}")


CLUMSY = UpdatePath("clumsy", OLD, (NEW,), Ending(NEW, Outcome.SUCCEEDED), part=lambda _: Part(switches_in_two=True))


def all_points(striker, *faults):
    return [(path, fault, point) for path in PATHS for fault in faults for point in striker.points(path, fault)]


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.EIO, Fault.ENOSPC])
def test_one_version_always_serves_and_the_update_ends(striker, fault):
    check_some(striker, fault)


def test_a_power_cut_is_survived(striker, mountable):
    check_some(striker, Fault.POWER)


def check_some(striker, fault):
    day, path = datetime.date.today().toordinal(), list(Fault).index(fault)
    for turn in range(EVERYDAY):
        chosen = PATHS[(day + path + turn) % len(PATHS)]
        points = striker.points(chosen, fault)
        struck = striker.strike(chosen, fault, points[day * 37 % len(points)])
        assert struck.wrong == (), struck


def test_a_device_that_switches_in_two_steps_is_found_out(striker):
    points = striker.points(CLUMSY, Fault.KILL)
    after = next(point for point in points if point.call.startswith("symlink") and point.about.endswith("tiny/active"))
    assert "after the start, 0.0 answers" in striker.strike(CLUMSY, Fault.KILL, after).wrong


@pytest.mark.slow
def test_hundreds_of_points(striker, tmp_path):
    faults = [Fault.KILL, Fault.EIO, Fault.ENOSPC] + [Fault.POWER] * (not can_mount(tmp_path))
    points = all_points(striker, *faults)
    assert len(points) >= LEAST_POINTS
    chosen = [(path.name, fault, point) for path, fault, point in points[:: max(1, len(points) // (LEAST_POINTS + 50))]]
    assert [struck for struck in strike_all(chosen, 2, tmp_path) if struck.wrong] == []
