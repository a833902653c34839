"""`python -m benchmarks.demo [--keep] [--home DIR]`: tell the story; exit 0 only if every step of it came true."""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.demo.local_fleet import CHECKOUT, LocalFleet, StepFailedError
from benchmarks.demo.story import Story
from benchmarks.demo.teller import Teller
from fleet.client import ApiError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running until Ctrl-C and print the dashboard's address"
    )
    parser.add_argument("--home", type=Path, default=CHECKOUT / ".demo", help="folder for all state; erased first")
    options = parser.parse_args()

    teller = Teller()
    fleet = LocalFleet(options.home)
    fleet.erase()
    story = Story(fleet, teller)
    try:
        story.run()
        teller.end(f"Done in {teller.elapsed_s:.0f} s: every step above was checked.", ok=True)
        if options.keep:
            token = fleet.service_home / "admin.token"
            print(f"Dashboard: {fleet.url}/  (log in with the token in {token}; Ctrl-C ends everything)", flush=True)
            signal.pause()
    except (StepFailedError, ApiError) as error:
        teller.end(f"The demo stopped: {error}", ok=False)
        print(f"Logs: {options.home}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        story.close()
        fleet.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
