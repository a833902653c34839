"""What can stop a build, and with which exit status does the command end?

BuildError              build.error      4   a stage or an external step failed
├── RecipeError         recipe.invalid   2   fix the recipe, or the flag that changed it
├── UsageError          usage.invalid    2   fix the command line
├── LimitError          limit.unmet      3   the recipe's latency or quality limit was not met
├── DataError           data.invalid     4   fix the data, or the source that reads it
├── NetworkError        network.invalid  4   the network cannot be built, trained or exported
├── StageError          stage.failed     4   a stage broke; the cause is attached
├── CacheError          cache.failed     4   the stage cache cannot be written
├── TrackingError       tracking.failed  4   the tracking store cannot be read or written
├── KeysError           keys.invalid     2   fix the key folder, or name another one
├── FleetError          fleet.failed     4   the fleet is out of reach, or could not do what was asked
│   ├── FleetRefusedError   fleet.refused    6   the fleet does not believe or allow it; repeating will not help
│   ├── RaceError           release.race     4   someone else published in between: fetch, sign again
│   └── ConflictError       release.conflict 6   the same model, version and target is published with other content
└── MissingError        need.missing     5   install what the message names

Codes are stable, texts are not. Errors of the runtime and of the contract keep their own codes; `exit_status` maps them.
"""

from typing import ClassVar

from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, EngineMissingError

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_LIMIT = 3
EXIT_FAILED = 4
EXIT_MISSING = 5
EXIT_REFUSED = 6
EXIT_INTERRUPTED = 130


class BuildError(Exception):
    """Root of the toolchain's errors. The text is one line: what, where, and the next step."""

    code: ClassVar[str] = "build.error"
    exit_status: ClassVar[int] = EXIT_FAILED


class RecipeError(BuildError):
    code = "recipe.invalid"
    exit_status = EXIT_USAGE


class UsageError(BuildError):
    code = "usage.invalid"
    exit_status = EXIT_USAGE


class LimitError(BuildError):
    code = "limit.unmet"
    exit_status = EXIT_LIMIT


class DataError(BuildError):
    code = "data.invalid"


class NetworkError(BuildError):
    code = "network.invalid"


class StageError(BuildError):
    code = "stage.failed"


class CacheError(BuildError):
    code = "cache.failed"


class TrackingError(BuildError):
    code = "tracking.failed"


class KeysError(BuildError):
    code = "keys.invalid"
    exit_status = EXIT_USAGE


class FleetError(BuildError):
    code = "fleet.failed"


class FleetRefusedError(FleetError):
    code = "fleet.refused"
    exit_status = EXIT_REFUSED


class RaceError(FleetError):
    code = "release.race"


class ConflictError(FleetError):
    code = "release.conflict"
    exit_status = EXIT_REFUSED


class MissingError(BuildError):
    code = "need.missing"
    exit_status = EXIT_MISSING


def exit_status(error: BaseException) -> int:
    """The process exit status for an error that reached the command line; EXIT_BUG for one nobody foresaw."""
    if isinstance(error, BuildError):
        return error.exit_status
    if isinstance(error, ContractError):
        return EXIT_REFUSED
    if isinstance(error, EngineMissingError):
        return EXIT_MISSING
    if isinstance(error, DaemonError | OSError):  # a full disk or a folder without rights is nobody's bug
        return EXIT_FAILED
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return EXIT_BUG
