"""Are the machine's own energy counters read as the kernel documents them? The counters here are files."""

import itertools
from pathlib import Path

import pytest

from toolchain.benchmark import energy
from toolchain.benchmark.energy import find_meter


def rapl(root: Path, index: int, name: str, microjoules: int, most: int = 262_143_328_850) -> Path:
    folder = root / "class" / "powercap" / f"intel-rapl:{index}"
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{value}\n")
    return folder


def spend(counters: dict[Path, int], microjoules: int, most: int = 262_143_328_850) -> None:
    for path, value in counters.items():
        counters[path] = (value + microjoules) % most
        path.write_text(f"{counters[path]}\n")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves 1 ms a look, so that no test waits and all calls are counted alike."""
    ticks = itertools.count(0, 1_000_000)
    monkeypatch.setattr(energy.time, "perf_counter_ns", lambda: next(ticks))


def test_rapl_sums_the_packages_and_leaves_out_the_platform(tmp_path: Path, clock: None) -> None:
    counters = {rapl(tmp_path, index, f"package-{index}", 1000) / "energy_uj": 1000 for index in (0, 1)}
    rapl(tmp_path, 2, "psys", 7)
    meter = find_meter(tmp_path)
    assert meter is not None
    assert meter.measure(lambda: spend(counters, 250), 10_000_000) == 500


def test_rapl_that_starts_again_at_its_range(tmp_path: Path, clock: None) -> None:
    most = 100_000
    path = rapl(tmp_path, 0, "package-0", most - 100, most) / "energy_uj"
    meter = find_meter(tmp_path)
    assert meter is not None
    assert meter.measure(lambda: spend({path: int(path.read_text())}, 250, most), 10_000_000) == 250


def test_a_jetson_s_input_rail_is_mean_power_times_time(tmp_path: Path, clock: None) -> None:
    folder = tmp_path / "bus" / "i2c" / "drivers" / "ina3221" / "1-0040" / "hwmon" / "hwmon3"
    folder.mkdir(parents=True)
    for name, value in (
        ("in1_label", "VDD_CPU_GPU_CV"), ("in1_input", 5000), ("curr1_input", 9000),
        ("in2_label", "VDD_IN"), ("in2_input", 5000), ("curr2_input", 1600),
    ):  # fmt: skip
        (folder / name).write_text(f"{value}\n")
    meter = find_meter(tmp_path)
    assert meter is not None
    calls: list[int] = []
    spent = meter.measure(lambda: calls.append(1), 50_000_000)
    assert spent is not None
    seconds = spent * len(calls) / 8_000_000  # 5 V x 1.6 A = 8 W
    assert seconds == pytest.approx(0.05, abs=0.005)  # the span, and a few looks at the clock


@pytest.mark.parametrize("content", ["", "n/a\n"])
def test_a_counter_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (rapl(tmp_path, 0, "package-0", 1) / "energy_uj").write_text(content)
    assert find_meter(tmp_path) is None


def test_a_machine_without_counters(tmp_path: Path) -> None:
    assert find_meter(tmp_path) is None
