"""The fleet command: fast help, honest exit statuses, and the way from init to a rollout that is done."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fleet.app import create_app
from fleet.cli import main
from fleet.cli.rollout import parse_stage
from fleet.config import Config
from fleet.errors import ConfigError
from fleet.scheduler import Scheduler
from fleet.services import Services
from tests.fleet.peers import Behaviour, Clock, Devices, root_json
from tests.fleet.serving import serving

HEAVY = [
    "fastapi",
    "sqlalchemy",
    "alembic",
    "pydantic",
    "uvicorn",
    "cryptography",
    "tuf",
    "httpx",
    "numpy",
    "paho",
    "jinja2",
    "rich",
]
LIMIT_S = 60
ROOT = Path(__file__).parents[3]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


def fleet(*arguments: str) -> Done:
    """The command in this process, which saves a start of half a second; what a start costs has tests of its own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(arguments)
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def start(code: str, *arguments: str, **environment: str) -> Done:
    """Python code in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env={**os.environ, **environment}
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("arguments", "allowed"), [
    (["--help"], []),
    # typer builds a command's parameters with pydantic, so the help of one command loads it; `fleet --help` does not.
    (["rollout", "--help"], ["pydantic"]),
    (["rollout", "create", "--help"], ["pydantic"]),
    (["serve", "--help"], ["pydantic"]),
])  # fmt: skip
def test_help_imports_nothing_heavy(arguments: list[str], allowed: list[str]) -> None:
    code = f"""
import sys
from fleet.cli import main
try:
    main({arguments!r})
finally:
    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = start(code)
    assert (done.returncode, done.stderr.strip()) == (0, str(allowed))
    assert "Usage: fleet" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["explode"], 2, "explode"),
        (["rollout", "watc"], 2, "watc"),
        (["device", "show"], 2, "DEVICE"),
        (["config", "show", "--config", "/none/fleet.toml"], 2, "fleet init"),
        (["serve", "--home", "/none"], 2, "fleet init"),
        (["serve", "--role", "ingest"], 2, "role"),
        (["init", "--root", "/none/root.json", "--home", "/tmp/x"], 2, "toolchain keys create"),
        (["rollout", "create", "m", "1.0.0", "--stage", "ten"], 2, "--stage"),
        (["rollout", "create", "m", "1.0.0", "--label", "lab"], 2, "--label"),
        (["rollout", "create", "m", "1.0.0", "--gate", "min_rows=x"], 2, "min_rows"),
        (["device", "list", "--home", "/none"], 2, "--token-file"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(arguments: list[str], status: int, words: str) -> None:
    done = fleet(*arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_service_that_does_not_answer_is_status_four(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("ew_x")
    done = fleet("device", "show", "gw-1", "--url", "http://127.0.0.1:9", "--token-file", str(token))
    assert (done.returncode, "127.0.0.1:9" in done.stderr) == (4, True)


def test_without_the_extra_the_install_line_and_status_five(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('no typer here')\n")
    done = start("from fleet.cli import main; main(['--help'])", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 5
    assert 'pip install "edgewright[fleet]"' in done.stderr


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("10%", {"percent": 10, "approval": False}),
        ("1:30", {"count": 1, "soak_s": 30, "approval": False}),
        ("50%:600:approval", {"percent": 50, "soak_s": 600, "approval": True}),
        ("2:approval", {"count": 2, "approval": True}),
    ],
)
def test_stages_are_written_briefly(text: str, stage: dict[str, object]) -> None:
    assert parse_stage(text) == stage


@pytest.mark.parametrize("text", ["", "%", "1:x", "x:1", "1:approval:2"])
def test_a_stage_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="--stage"):
        parse_stage(text)


def test_init_and_config_show(tmp_path: Path) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(root_json())
    home = tmp_path / "home"
    made = fleet("init", "--root", str(root), "--home", str(home), "--name", "demo", "--api-port", "18080", "--json")
    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert (answer["fleet"], answer["url"]) == ("demo", "http://127.0.0.1:18080")
    assert Path(answer["token_file"]).read_text().startswith("ew_")
    again = fleet("init", "--root", str(root), "--home", str(home))
    assert (again.returncode, "already" in again.stderr) == (2, True)
    shown = json.loads(fleet("config", "show", "--home", str(home), "--json").stdout)
    origins = {setting["key"]: (setting["value"], setting["origin"]) for setting in shown}
    assert origins["fleet.name"] == ("demo", str(home / "fleet.toml"))
    assert origins["scheduler.step_ms"] == (500, "default")
    flipped = tmp_path / "flipped.json"
    flipped.write_bytes(root_json().replace(b'"sig":"', b'"sig":"00', 1))
    assert fleet("init", "--root", str(flipped), "--home", str(tmp_path / "other")).returncode == 6


@pytest.fixture
def run(services: Services, config: Config) -> Iterator[Run]:
    """The command against a service that serves this test's home."""
    with serving(create_app(services)) as url:

        def command(*arguments: str) -> Done:
            return fleet(*arguments, "--home", str(config.home), "--url", url)

        yield command


def test_the_way_from_creation_to_done(run: Run, devices: Devices, scheduler: Scheduler, clock: Clock) -> None:
    devices.enrol("gw-1", "gw-2", labels={"site": "lab"})
    devices.publish("digits", "1.0.0")
    assert "gw-2" in run("device", "list").stdout
    created = run(
        "rollout", "create", "digits", "1.0.0", "--stage", "100%:5", "--label", "site=lab", "--gate", "min_rows=50", "--start"
    )
    rollout = created.stdout.strip()
    assert created.returncode == 0, created.stderr
    assert "paused" in run("rollout", "pause", rollout).stdout
    assert "updating" in run("rollout", "resume", rollout).stdout
    scheduler.run_once()
    devices.converge()
    devices.serve("digits", Behaviour())
    scheduler.run_once()
    clock.pass_s(6)
    scheduler.run_once()
    watched = run("rollout", "watch", rollout)
    assert (watched.returncode, "done" in watched.stdout) == (0, True)
    shown = json.loads(run("rollout", "show", rollout, "--json").stdout)
    assert {job["state"] for job in shown["jobs"]} == {"succeeded"}
    table = run("rollout", "show", rollout).stdout
    assert "failed_updates" in table
    assert rollout in run("rollout", "list").stdout
    assert "digits 1.0.0" in run("device", "show", "gw-1").stdout


def test_a_rollout_that_was_rolled_back_is_status_three(run: Run, devices: Devices, scheduler: Scheduler) -> None:
    devices.enrol("gw-1")
    devices.publish("digits", "1.0.0")
    rollout = run("rollout", "create", "digits", "1.0.0", "--start").stdout.strip()
    run("rollout", "rollback", rollout)
    scheduler.run_once()
    assert run("rollout", "watch", rollout).returncode == 3


def test_what_the_service_refuses_is_status_two_with_its_code(run: Run) -> None:
    for arguments, code in [
        (["device", "show", "nobody"], "device.unknown"),
        (["device", "revoke", "nobody"], "device.unknown"),
        (["rollout", "create", "digits", "1.0.0"], "release.unknown"),
        (["rollout", "start", "r-none"], "rollout.unknown"),
    ]:
        done = run(*arguments)
        assert (done.returncode, code in done.stderr) == (2, True), done.stderr


def test_tokens_let_people_and_devices_in(run: Run, devices: Devices) -> None:
    assert len(run("token", "enrol", "--label", "site=lab").stdout.strip()) > 100
    made = json.loads(run("token", "create", "bob", "--role", "operator", "--json").stdout)
    assert (made["name"], made["role"]) == ("bob", "operator")
    devices.enrol("gw-1")
    assert run("device", "revoke", "gw-1").returncode == 0
    assert "revoked" in run("device", "list").stdout
    assert run("alert", "list").returncode == 0
