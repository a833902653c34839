"""How does a command line become an exit status and, when something fails, one line that helps?"""

import os
import sys
import traceback
from collections.abc import Sequence

from fleet.cli.output import say
from fleet.errors import ConfigError, FleetError, InvalidError, MissingProgramError, SetupError
from runtime.contract.errors import ContractError

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_FAILED = 4
EXIT_MISSING = 5
EXIT_REFUSED = 6
EXIT_INTERRUPTED = 130

INSTALL_LINE = 'fleet needs its extra: pip install "edgewright[fleet]"'


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with the status DESIGN.md gives it. `--debug` is understood before and after the command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        status = _run([argument for argument in given if argument != "--debug"])
    except KeyboardInterrupt:
        say("fleet: interrupted")
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`fleet ... | head`); a second failure at interpreter exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:  # noqa: BLE001 - the edge of the process: every failure becomes one line and a status
        status = _explain(error, debug)
    sys.stdout.flush()
    raise SystemExit(status)


def exit_status(error: Exception) -> int:
    """What a script should learn: whether to fix its input, install something, or look at the service."""
    if isinstance(error, ConfigError | SetupError | InvalidError):
        return EXIT_USAGE
    if isinstance(error, MissingProgramError):
        return EXIT_MISSING
    if isinstance(error, ContractError):
        return EXIT_REFUSED
    if isinstance(error, FleetError):
        return EXIT_FAILED
    status = getattr(error, "status", None)  # an ApiError, whose module would load the HTTP client
    if status is not None:
        return EXIT_USAGE if 400 <= status < 500 else EXIT_FAILED
    return EXIT_BUG


def _run(arguments: list[str]) -> int:
    try:
        import typer.main
    except ImportError:
        say(INSTALL_LINE)
        return EXIT_MISSING
    from fleet.cli.commands import app

    command = typer.main.get_command(app)
    result = command.main(args=arguments, prog_name="fleet", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _explain(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    # typer carries its own copy of click in newer versions, so its errors are told by what they offer, not by their class.
    format_message = getattr(error, "format_message", None)
    if format_message is not None and type(error).__name__ == "NoArgsIsHelpError":
        say(format_message())
        return EXIT_USAGE
    if format_message is not None:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        say(f"fleet: {format_message()}{hint}")
        return EXIT_USAGE
    if isinstance(error, ImportError) and error.name and not error.name.startswith(("fleet", "runtime")):
        say(f'fleet: {error.name} is not installed: pip install "edgewright[fleet]"')
        return EXIT_MISSING
    status = exit_status(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if status == EXIT_BUG:
        text = f"bug: {type(error).__name__}: {text}; --debug shows where, please report it"
    say(f"fleet: {text}")
    return status
