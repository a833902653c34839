"""At which points can a walk be struck? Every system call that changes the state directory, found by tracing an undisturbed walk.

A point is a call by name and number: the n-th `fsync` of the process. A walk is one thread, so the numbers hold from one
walk to the next.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip
CHECKOUT = Path(__file__).parents[2]
_LINE = re.compile(r"^(\d+) +([a-z0-9]+)\((.*)$")
WALK_S = 120.0


class Point(NamedTuple):
    """The `number`-th call of this name, from 1. about: what the call was for, for people."""

    call: str
    number: int
    about: str

    def __str__(self) -> str:
        return f"{self.call}#{self.number}"


def find_points(state_dir: Path, acknowledged: Path) -> list[Point]:
    """Walk once under the tracer, and name every call that touches the state directory."""
    trace = state_dir.with_name(state_dir.name + ".trace")
    command = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={','.join(CALLS)}", "-o", str(trace)]
    done = run_walk(state_dir, acknowledged, command)
    if done.returncode != 0:
        raise RuntimeError(f"the undisturbed walk failed:\n{done.stderr}")
    return list(_points(trace.read_text(encoding="utf-8", errors="replace").splitlines(), state_dir))


def run_walk(state_dir: Path, acknowledged: Path, tracer: list[str]) -> subprocess.CompletedProcess[str]:
    """A walk in a process of its own, under a tracer or bare."""
    command = [*tracer, sys.executable, "-m", "benchmarks.crash_points.walk", str(state_dir), str(acknowledged)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=WALK_S, check=False, env=_environment())


def strike(point: Point, fault: str) -> list[str]:
    """The tracer that strikes there. fault: "signal=SIGKILL" (before the call is carried out), "error=EIO", "error=ENOSPC"."""
    only = f"trace={point.call}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", only, "-e", f"inject={point.call}:{fault}:when={point.number}"]


def _points(lines: list[str], state_dir: Path) -> "list[Point]":
    counts: Counter[str] = Counter()
    found: list[Point] = []
    walker = ""
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        thread, call, rest = match.groups()
        walker = walker or thread
        if thread != walker:
            continue  # the engine's threads, if any, write nothing of ours
        counts[call] += 1
        if str(state_dir) in rest:
            found.append(Point(call, counts[call], _about(rest, state_dir)))
    return found


def _about(arguments: str, state_dir: Path) -> str:
    """The files a call names, relative to the state directory."""
    names = re.findall(re.escape(str(state_dir)) + r"/?([^\">,]*)", arguments)
    return " -> ".join(dict.fromkeys(name or "." for name in names))


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
