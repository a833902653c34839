"""What does each command of `runtime` do?"""

import argparse
import json
import logging
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.config import Config, Setting, load_config, parse_assignments
from runtime.contract.errors import ContractError
from runtime.errors import ConfigError, DaemonError, EngineMissingError, EngineUnknownError, ExtraMissingError, RequestError
from runtime.exits import EXIT_BUG, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISSING, EXIT_REFUSED, EXIT_UNMET, EXIT_USAGE

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run(arguments: argparse.Namespace) -> int:
    """Run one parsed command and return the exit status. Every failure is one line on stderr."""
    try:
        config, origins = load_config(arguments.config, parse_assignments(arguments.set))
        return _COMMANDS[arguments.command](arguments, config, origins)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader had seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  so that the interpreter's last flush has somewhere to go
        return EXIT_DONE
    except (ConfigError, RequestError) as error:
        return _fail(error, EXIT_USAGE)
    except (EngineMissingError, EngineUnknownError, ExtraMissingError) as error:
        return _fail(error, EXIT_MISSING)
    except ContractError as error:
        return _fail(error, EXIT_REFUSED)
    except DaemonError as error:
        return _fail(error, EXIT_FAILED)
    except Exception:  # the process's edge: the trace is for the bug report, the status for scripts
        log.exception("bug in runtime %s", arguments.command)
        return EXIT_BUG


def _run(_arguments: argparse.Namespace, config: Config, _origins: dict[str, Setting]) -> int:
    log_lines = _start_logging(config)
    from runtime.daemon import run_daemon

    if run_daemon(config, log_lines):
        log.info("starting again, as the operator asked")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return EXIT_DONE


def _enroll(arguments: argparse.Namespace, config: Config, _origins: dict[str, Setting]) -> int:
    from runtime.enroll import enroll, read_token
    from runtime.files import make_state_directory

    text = Path(arguments.token[1:]).read_text(encoding="utf-8") if arguments.token.startswith("@") else arguments.token
    device = arguments.device or re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:40]
    make_state_directory(config.state_dir)
    identity = enroll(config.state_dir, read_token(text), device)
    _print(
        arguments,
        {"device": identity.device, "fleet": identity.fleet, "url": identity.url},
        f"{identity.device} belongs to the fleet {identity.fleet} now. Start it: runtime run",
    )
    return EXIT_DONE


def _install(arguments: argparse.Namespace, config: Config, _origins: dict[str, Setting]) -> int:
    _start_logging(config)
    from runtime.install import install

    job, is_live = install(config, arguments.bundle, model=arguments.model, target=arguments.target, root=arguments.root)
    since = "the running daemon serves it" if is_live else "serves from the next start on: runtime run"
    _print(
        arguments,
        {
            "model": job.model,
            "version": job.artifact.version,
            "target": job.artifact.target,
            "slot": job.slot,
            "serves": is_live,
        },
        f"{job.model} {job.artifact.version} is installed and {since}",
    )
    return EXIT_DONE


def _status(arguments: argparse.Namespace, config: Config, _origins: dict[str, Setting]) -> int:
    from runtime.contract.deployment import SHARE_WHOLE
    from runtime.status import read_status

    status = read_status(config.state_dir)
    lines = [f"device {status['device'] or '(not enrolled)'}, fleet {status['fleet'] or '-'}, generation {status['generation']}"]
    for model in status["models"]:
        serves = f"{model['artifact']['version']} (slot {model['slot']})" if model["artifact"] else "nothing"
        role = "" if model["role"] == "active" else f" as {model['role']} on {model['share'] / SHARE_WHOLE:.2%} of the traffic"
        line = f"{model['model']}{role}: serves {serves}; {model['state']}, last update {model['outcome']} {model['error_code']}"
        lines.append(line.rstrip())
        if model["engine"]:
            lines.append(f"  runs in {model['engine']}")
        if model["held_back"]:
            lines.append(f"  held back: {model['held_back']}")
        elif model["error_detail"]:
            lines.append(f"  {model['error_detail']}")
    if status["coming_bytes"]:
        lines.append(f"fetching: {status['coming_bytes'] / 1e6:.1f} MB of a file so far")
    _print(arguments, status, "\n".join(lines))
    return EXIT_DONE


def _infer(arguments: argparse.Namespace, config: Config, _origins: dict[str, Setting]) -> int:
    from runtime.infer import infer_file

    if arguments.batch is not None:
        return _infer_batch(arguments, config)
    if arguments.input is None:
        raise RequestError("what should be run? Give an input file, or --batch SOURCE --out FILE")
    surplus = [
        f"--{name.replace('_', '-')}" for name in ("rows_per_batch", "resume", "strict", "drift") if getattr(arguments, name)
    ]
    if surplus:
        raise RequestError(f"{surplus[0]} goes with --batch")
    outputs = infer_file(config.state_dir, arguments.model, arguments.input, arguments.out, raw=arguments.raw)
    text = "\n".join(f"{name} {entry['shape']}: {entry['data']}" for name, entry in outputs.items())
    _print(arguments, outputs, text)
    return EXIT_DONE


def _infer_batch(arguments: argparse.Namespace, config: Config) -> int:
    from runtime.batch.drift import describe
    from runtime.batch.run import BatchOptions, run_batch
    from runtime.infer import served_directory

    if arguments.input is not None or arguments.out is None:
        raise RequestError("a batch is run by --batch SOURCE --out FILE, without another input file")
    options = BatchOptions(
        raw=arguments.raw, rows_per_batch=arguments.rows_per_batch, resume=arguments.resume, strict=arguments.strict,
        drift=arguments.drift,
    )  # fmt: skip
    summary = run_batch(served_directory(config.state_dir, arguments.model), arguments.batch, arguments.out, options)
    lines = [f"{summary['rows']} rows, {summary['failed']} rejected, {summary['rows_per_s']:g} rows/s: {summary['out']}"]
    if summary["failed"]:
        lines.append(f"why rows were rejected: {summary['rejects']}")
    lines += describe(summary["drift"]) if "drift" in summary else []
    _print(arguments, summary, "\n".join(lines))
    return EXIT_DONE


def _doctor(arguments: argparse.Namespace, config: Config, _origins: dict[str, Setting]) -> int:
    from runtime.doctor import examine

    findings = examine(config)
    marks = {True: "ok  ", False: "FAIL"}
    _print(
        arguments,
        [{"what": finding.what, "ok": finding.ok, "detail": finding.detail} for finding in findings],
        "\n".join(f"{marks[finding.ok]} {finding.what}: {finding.detail}" for finding in findings),
    )
    return EXIT_DONE if all(finding.ok for finding in findings) else EXIT_UNMET


def _config(arguments: argparse.Namespace, _config: Config, origins: dict[str, Setting]) -> int:
    _print(
        arguments,
        {key: {"value": setting.value, "origin": setting.origin} for key, setting in origins.items()},
        "\n".join(f"{key} = {json.dumps(setting.value)}  # {setting.origin}" for key, setting in origins.items()),
    )
    return EXIT_DONE


_COMMANDS: dict[str, Callable[[argparse.Namespace, Config, dict[str, Setting]], int]] = {
    "run": _run,
    "enroll": _enroll,
    "install": _install,
    "status": _status,
    "infer": _infer,
    "doctor": _doctor,
    "config": _config,
}


class _Remember(logging.Handler):
    """Keeps the newest lines for the operator's `log_tail`."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


def _start_logging(config: Config) -> deque[str]:
    lines: deque[str] = deque(maxlen=config.device.log_lines)
    logging.basicConfig(
        level=config.device.log_level.upper(),
        format=LOG_FORMAT,
        handlers=[logging.StreamHandler(sys.stderr), _Remember(lines)],
    )
    return lines


def _print(arguments: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data, indent=2) if arguments.json else text)  # noqa: T201  this is the command's output


def _fail(error: Exception, status: int) -> int:
    code = getattr(error, "code", "daemon.error")
    print(f"runtime: {error} [{code}]", file=sys.stderr)  # noqa: T201  the one line a failure prints
    return status
