"""Are a Jetson's chip and an Intel NPU found by the files Linux gives them, and nothing where there are none?"""

from pathlib import Path

import pytest

from runtime.backends.accelerators import accelerators


def write(root: Path, name: str, content: bytes = b"") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, set()),
        ({"proc/device-tree/compatible": b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0"}, {"tegra234"}),
        ({"proc/device-tree/compatible": b"raspberrypi,5-model-b\0brcm,bcm2712\0"}, set()),
        ({"sys/module/intel_vpu/version": b"", "dev/accel/accel0": b""}, {"intel-npu"}),
        ({"sys/module/intel_vpu/version": b""}, set()),
        ({"dev/accel/accel0": b""}, set()),
    ],
    ids=["nothing", "orin", "raspberry", "npu", "driver without device", "device of another driver"],
)
def test_each_is_known_by_its_files(tmp_path: Path, files: dict[str, bytes], found: set[str]) -> None:
    for name, content in files.items():
        write(tmp_path, name, content)
    assert accelerators(tmp_path) == found
