"""Strike a device at every durable step of every way through an update, and see that it comes back.

    python -m benchmarks.crash_points --list           # the points, and how many
    python -m benchmarks.crash_points                  # all of them: more than an hour on 2 cores
    python -m benchmarks.crash_points --every 10       # a tenth
    python -m benchmarks.crash_points --path update --fault power

A kill or a power cut before each system call that changes the state directory (so also after the one before it), and EIO and
ENOSPC from each. Afterwards the device must start and serve the old version or the new one, end the update as the path
should, report it, and leave nothing behind. Needs strace; power cuts need the right to mount a loop image and are skipped,
aloud, without it. Exit 3 when something did not hold.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.crash_points.paths import PATHS, Bench, UpdatePath
from benchmarks.crash_points.pool import Task, strike_all
from benchmarks.crash_points.strikes import Fault, Striker, Struck, can_mount

MEMORY = Path("/dev/shm")
_PATHS = {path.name: path for path in PATHS}


def main() -> int:
    arguments = parse_arguments()
    if shutil.which("strace") is None:
        print("crash_points: strace is not installed: apt-get install strace", file=sys.stderr)
        return 5
    with bench_folder() as folder:
        faults = list(possible(arguments.fault or list(Fault), folder))
        paths = [_PATHS[name] for name in arguments.path or _PATHS]
        tasks = list_tasks(paths, faults, folder / "list")
        if arguments.list:
            show_list(tasks)
            return 0
        chosen = tasks[:: arguments.every]
        struck = list(progress(strike_all(chosen, arguments.jobs, folder), len(chosen)))
    if arguments.json:
        arguments.json.write_text(json.dumps([one._asdict() for one in struck], indent=1) + "\n")
    return show_result(struck)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crash_points", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the points instead of striking them")
    parser.add_argument("--path", action="append", choices=sorted(_PATHS), help="only this way (repeatable)")
    parser.add_argument("--fault", action="append", choices=list(Fault), type=Fault, help="only this fault (repeatable)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th point")
    parser.add_argument("--jobs", type=int, default=2, help="strikes beside one another (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what every strike did to this file")
    return parser.parse_args()


@contextmanager
def bench_folder() -> Iterator[Path]:
    """In memory where there is such a folder: what a power cut leaves is settled by the image, not by the disk below it."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="edgewright-crash-", dir=place) as folder:
        yield Path(folder)


def possible(faults: list[Fault], folder: Path) -> Iterator[Fault]:
    for fault in faults:
        if fault is Fault.POWER and (reason := can_mount(folder)):
            print(f"power cuts are SKIPPED: {reason}")
        else:
            yield fault


def list_tasks(paths: list[UpdatePath], faults: list[Fault], folder: Path) -> list[Task]:
    folder.mkdir()
    bench = Bench(folder)
    try:
        striker = Striker(bench, folder)
        # The calls depend on the path and, for a power cut, on the file system; not on the other faults.
        return [(path.name, fault, point) for path in paths for fault in faults for point in striker.points(path, fault)]
    finally:
        bench.close()


def progress(struck: Iterator[Struck], total: int) -> Iterator[Struck]:
    began = time.monotonic()
    for done, one in enumerate(struck, 1):
        if one.wrong or done % 20 == 0 or done == total:
            left_s = (time.monotonic() - began) / done * (total - done)
            print(f"{done}/{total}, about {left_s / 60:.0f} min left", file=sys.stderr)
        if one.wrong:
            print(f"WRONG {one.path} {one.fault} {one.point} ({one.point.about}): {'; '.join(one.wrong)}", file=sys.stderr)
        yield one


def show_list(tasks: list[Task]) -> None:
    for path, fault, point in tasks:
        print(f"{path:12} {fault:7} {point!s:14} {point.about}")
    counts = Counter(fault for _, fault, _ in tasks)
    print(f"{len(tasks)} points: " + ", ".join(f"{count} {fault}" for fault, count in counts.items()))


def show_result(struck: list[Struck]) -> int:
    wrong = [one for one in struck if one.wrong]
    for path in dict.fromkeys(one.path for one in struck):
        row = [one for one in struck if one.path == path]
        counts = Counter(one.fault for one in row)
        failed = sum(bool(one.wrong) for one in row)
        print(f"{path:12} " + ", ".join(f"{count} {fault}" for fault, count in counts.items()) + f": {failed} wrong")
    print(f"{len(struck)} points, {len(wrong)} wrong")
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
