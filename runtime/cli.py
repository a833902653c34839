"""What can be asked of the device side from a shell?

Parses, calls, prints; decides nothing. Everything beyond the standard library is imported by the command that needs it, so
that `--help` answers at once. Data goes to stdout, logs to stderr. The exit statuses are in `runtime/exits.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    from runtime import commands  # everything a command needs, imported only now

    return commands.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runtime", description="Serve models on this device and keep them up to date.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add(commands, "run", "serve until stopped: inference, updates, telemetry")

    enroll = _add(commands, "enroll", "join a fleet with the token its operator gave you")
    enroll.add_argument("token", help="the enrolment token, or @FILE to read it from a file")
    enroll.add_argument("--device", default="", help="this device's id, 1 to 40 of a-z 0-9 - (default: the host's name)")

    install = _add(commands, "install", "install a side-load bundle with the checks of an online update")
    install.add_argument("bundle", type=Path, help="an .edge file, made by `toolchain bundle`")
    install.add_argument("--model", default="", help="which model, where the bundle holds several")
    install.add_argument("--target", default="", help="which target (default: the first that fits this device)")
    install.add_argument("--root", type=Path, help="root.json to pin, on a device that belongs to no fleet")

    _add(commands, "status", "what this device serves, wants and last reported; works without the daemon")

    infer = _add(commands, "infer", "run the served version of a model on a file or many, in this process")
    infer.add_argument("model")
    infer.add_argument(
        "input", type=Path, nargs="?", help="an .npz file with one array per input (--raw: a picture, sound or array)"
    )
    infer.add_argument("--out", type=Path, help="write the outputs to this .npz file instead of printing them")
    infer.add_argument("--raw", action="store_true", help="prepare and decode by the steps of the model's manifest")
    infer.add_argument("--batch", type=Path, metavar="SOURCE", help="run every row of a .parquet, .npz or .npy file, or folder")
    infer.add_argument(
        "--rows-per-batch", type=int, default=0, metavar="N", help="rows computed and kept at once (default: by size)"
    )
    infer.add_argument("--resume", action="store_true", help="go on with a batch run that was interrupted")
    infer.add_argument("--strict", action="store_true", help="end a batch run at the first bad row")
    infer.add_argument("--drift", action="store_true", help="say at the end how far a batch is from the model's reference")

    _add(commands, "doctor", "what this device can run, and what is wrong with its set-up")

    config = commands.add_parser("config", help="the configuration in force")
    config_commands = config.add_subparsers(dest="config_command", required=True, metavar="COMMAND")
    _add(config_commands, "show", "each value with its origin")
    return parser


def _add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--config", type=Path, metavar="FILE", help="runtime.toml (default: /etc/edgewright/runtime.toml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as serving.port=8001")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
