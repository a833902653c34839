"""Does a fetch keep to its pace, and say how far it is no more often than every few seconds?"""

import pytest

from runtime.update.pace import BURST_S, LARGEST_PIECE, SMALLEST_PIECE, Pace, Progress


class Clock:
    def __init__(self):
        self.now_s = 100.0
        self.slept = []

    def monotonic_s(self):
        return self.now_s

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


def paced(clock, bytes_per_s):
    return Pace(bytes_per_s, monotonic_s=clock.monotonic_s, sleep=clock.sleep)


@pytest.mark.parametrize("piece", [1, 100, 10_000])
def test_bytes_come_at_the_pace_from_the_first_one_on(clock, piece):
    pace = paced(clock, 1000)
    for _ in range(0, 60_000, piece):
        pace.spend(piece)
    assert clock.now_s - 100.0 == pytest.approx(60.0)


def test_no_bound_never_sleeps(clock):
    paced(clock, 0).spend(10**12)
    assert clock.slept == []


def test_a_slow_sender_is_not_slowed_further(clock):
    pace = paced(clock, 1000)
    for _ in range(10):
        clock.now_s += 1.0
        pace.spend(900)
    assert clock.slept == []


def test_a_stall_is_made_up_for_by_a_second_at_most(clock):
    pace = paced(clock, 1000)
    clock.now_s += 3600.0
    begun = clock.now_s
    for _ in range(50):
        pace.spend(100)
    assert clock.now_s - begun == pytest.approx(5.0 - BURST_S)


@pytest.mark.parametrize(
    ("bytes_per_s", "piece"), [(0, LARGEST_PIECE), (10**9, LARGEST_PIECE), (80_000, 10_000), (5, SMALLEST_PIECE)]
)
def test_a_slow_pace_reads_small_pieces(clock, bytes_per_s, piece):
    assert paced(clock, bytes_per_s).piece_bytes == piece


@pytest.mark.parametrize(("bytes_per_s", "held"), [(0, 0), (5_000, 8192), (800_000, 400_000)])
def test_little_is_on_its_way_when_a_slice_ends(clock, bytes_per_s, held):
    assert paced(clock, bytes_per_s).buffer_bytes == held


def test_progress_is_said_every_few_seconds(clock, caplog):
    caplog.set_level("INFO")
    progress = Progress(monotonic_s=clock.monotonic_s)
    for step in range(1, 81):
        clock.now_s += 0.25
        progress.at("ab" * 32, step * 1_250_000, 100_000_000)
    assert len(caplog.messages) == 4
    assert caplog.messages[0] == "blob abababababab…: 25.0 of 100.0 MB"
