"""How does a command line become an exit status and, when something fails, one line that helps?"""

import os
import sys
import traceback
from collections.abc import Sequence

from toolchain.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_MISSING, EXIT_USAGE, exit_status

INSTALL_LINE = 'toolchain needs its extra: pip install "edgewright[toolchain]"'


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with the status DESIGN.md gives it. `--debug` is understood before and after the command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        status = _run([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`toolchain ... | head`); a second failure at interpreter exit would only confuse.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:  # noqa: BLE001 - the edge of the process: every failure becomes one line and a status
        status = _explain(error, debug)
    if status == EXIT_INTERRUPTED:  # typer turns the interrupt into this status itself
        _say("toolchain: interrupted")
    sys.stdout.flush()
    raise SystemExit(status)


def _run(arguments: list[str]) -> int:
    try:
        import typer.main
    except ImportError:
        _say(INSTALL_LINE)
        return EXIT_MISSING
    from toolchain.cli.commands import app

    command = typer.main.get_command(app)
    result = command.main(args=arguments, prog_name="toolchain", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _explain(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    # typer carries its own copy of click in newer versions, so its errors are told by what they offer, not by their class.
    format_message = getattr(error, "format_message", None)
    if format_message is not None and type(error).__name__ == "NoArgsIsHelpError":
        _say(format_message())
        return EXIT_USAGE
    if format_message is not None:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        _say(f"toolchain: {format_message()}{hint}")
        return EXIT_USAGE
    if isinstance(error, ImportError) and getattr(error, "name", None) and not str(error.name).startswith("toolchain"):
        _say(f'toolchain: {error.name} is not installed: pip install "edgewright[toolchain]"')
        return EXIT_MISSING
    status = exit_status(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if status == EXIT_BUG:
        text = f"bug: {type(error).__name__}: {text}; --debug shows where, please report it"
    _say(f"toolchain: {text}")
    return status


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
