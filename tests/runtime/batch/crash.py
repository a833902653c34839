"""Kills a batch run before and after each durable step, resumes it, and compares: prints how many points there were.

python -m tests.runtime.batch.crash ARTIFACT SOURCE FOLDER SUFFIX. One process that forks, for each start would cost half a second.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from runtime.batch.run import BatchOptions, run_batch


class Killer:
    """Ends its own process at the nth step, as a power switch would."""

    def __init__(self, point):
        self.left = point

    def around(self, function):
        def run(*arguments, **named):
            self.step()
            result = function(*arguments, **named)
            self.step()
            return result

        return run

    def step(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def in_a_child(work):
    """The exit status of `work` in a forked process; -9 when it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  the child must not go on as the parent
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result_of(out):
    files = [out] if out.is_file() else sorted(out.iterdir())
    return [(file.name, file.read_bytes()) for file in files] + [out.with_name(f"{out.name}.rejects.jsonl").read_bytes()]


def main(artifact, source, folder, suffix):
    folder = Path(folder)

    def run(out, *, resume, point=None):
        if point is not None:
            killer = Killer(point)
            os.fsync, os.rename, shutil.rmtree = (killer.around(one) for one in (os.fsync, os.rename, shutil.rmtree))
        run_batch(Path(artifact), Path(source), out, BatchOptions(rows_per_batch=25, resume=resume, drift=True))

    whole = folder / "whole" / f"out{suffix}"
    whole.parent.mkdir()
    run(whole, resume=False)
    wanted = result_of(whole)
    point = 0
    while True:
        out = folder / str(point) / f"out{suffix}"
        out.parent.mkdir()
        status = in_a_child(lambda: run(out, resume=False, point=point))  # noqa: B023  it runs within the turn
        if status == 0:
            break
        assert status == -signal.SIGKILL, f"point {point}: exit {status}"
        assert not out.exists() or result_of(out) == wanted, f"point {point}: half a result"
        assert in_a_child(lambda: run(out, resume=True)) == 0, f"point {point}: cannot go on"  # noqa: B023
        assert result_of(out) == wanted, f"point {point}: another result"
        left = sorted(path.name for path in out.parent.iterdir())
        assert left == sorted([out.name, f"{out.name}.job.json", f"{out.name}.rejects.jsonl"]), f"point {point}: left {left}"
        point += 1
    print(point)


if __name__ == "__main__":
    main(*sys.argv[1:])
