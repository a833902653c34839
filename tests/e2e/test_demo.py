"""Does the demo end well? The whole story, minutes long; its steps check themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo.local_fleet import CHECKOUT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_the_demo_comes_true(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--home", str(tmp_path / "demo")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for step in ("gate 'class_mix' stopped it", "all four devices serve digits 1.2.1", "drift alarm on dock-cam: sharpness"):
        assert step in told.stdout
