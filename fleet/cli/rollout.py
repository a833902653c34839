"""`fleet rollout`: bring a release to devices in stages, and watch."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet.cli.options import HomeOption, JsonOption, TokenFileOption, UrlOption, new_app, open_client, pairs
from fleet.cli.output import emit, emit_json, emit_table, moment, say
from fleet.errors import ConfigError

if TYPE_CHECKING:
    from fleet.client import Client
    from fleet.client.documents import Rollout, RolloutSummary

app = new_app("Create, watch, pause, resume, approve and roll back rollouts.")

RolloutArgument = Annotated[str, typer.Argument(metavar="ROLLOUT", help="The rollout's id.")]
POLL_S = 1.0
EXIT_STOPPED = 3
ENDS = {"done": 0, "rolled_back": EXIT_STOPPED}


@app.command()
def create(
    model: str,
    version: str,
    *,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="SIZE[:SOAK][:approval]", help="10% or a count; seconds; cumulative. Default: 100%:60."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only devices with it.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="Only devices of this profile.")] = None,
    current_version: Annotated[str | None, typer.Option("--current", help="Only devices that serve this version.")] = None,
    gate: Annotated[
        list[str] | None, typer.Option("--gate", metavar="KEY=VALUE", help="A gate's limit, e.g. min_rows=200.")
    ] = None,
    on_failure: Annotated[str, typer.Option("--on-failure", help="rollback or pause.")] = "rollback",
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Devices updating at a time.")] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Leave out devices without an artifact.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a rollout; it waits for `--start` or `fleet rollout start`."""
    body: dict[str, Any] = {
        "model": model,
        "version": version,
        "labels": pairs(label, "--label"),
        "stages": [parse_stage(text) for text in stage or ["100%:60"]],
        "gates": {key: _number(f"--gate {key}", value) for key, value in pairs(gate, "--gate").items()},
        "on_failure": on_failure,
        "skip_missing": skip_missing,
    }
    given = {"profile": profile, "current_version": current_version, "concurrency": concurrency}
    body |= {key: value for key, value in given.items() if value is not None}
    with open_client(home, url, token_file) as client:
        made = client.create_rollout(body)
        if start:
            made = client.act(made["id"], "start")
    emit_json(made) if as_json else emit(made["id"])


@app.command("list")
def list_(
    *, home: HomeOption = None, url: UrlOption = None, token_file: TokenFileOption = None, as_json: JsonOption = False
) -> None:
    """Rollouts, newest first."""
    with open_client(home, url, token_file) as client:
        found = list(client.rollouts())
    if as_json:
        emit_json(found)
        return
    emit_table(
        ("rollout", "release", "state", "stage", "created", "why"),
        [
            (one["id"], f"{one['model']} {one['version']}", one["state"], f"{one['stage'] + 1}/{one['stages']}",
             moment(one["created_ms"]), one["reason"])
            for one in found
        ],
    )  # fmt: skip


@app.command()
def show(
    rollout: RolloutArgument,
    *,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """One rollout: its devices and what its gates say."""
    with open_client(home, url, token_file) as client:
        found = client.rollout(rollout)
    if as_json:
        emit_json(found)
        return
    emit(f"{found['id']}: {found['model']} {found['version']}, {_standing(found)}; {found['reason'] or 'not started'}")
    emit_table(
        ("device", "stage", "state", "told", "ended", "error"),
        [
            (job["device"], job["stage"] + 1, job["state"], moment(job["dispatched_ms"]), moment(job["finished_ms"]),
             job["error_code"])
            for job in found["jobs"]
        ],
    )  # fmt: skip
    emit_table(("gate", "says", "why"), [(one["gate"], one["decision"], one["reason"]) for one in found["verdicts"]])


@app.command()
def watch(
    rollout: RolloutArgument,
    *,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a rollout to its end: exit 0 when it is done, 3 when it was rolled back. --json prints one object a line."""
    with open_client(home, url, token_file) as client:
        state = _follow(client, rollout, as_json)
    raise typer.Exit(ENDS[state])


def _follow(client: "Client", rollout: str, as_json: bool) -> str:
    """Print what changes until the rollout ends. Asks once a second: unlike a stream, that outlives a service's restart."""
    import msgspec

    from fleet.client import UnreachableError

    shown = ""
    while True:
        try:
            found = client.rollout(rollout)
        except UnreachableError as error:
            say(f"fleet: {error.detail}; still watching")
            time.sleep(POLL_S)
            continue
        line = msgspec.json.encode(found).decode() if as_json else _line(found)
        if line != shown:
            emit(line if as_json else f"{time.strftime('%H:%M:%S')}  {line}")
            shown = line
        if found["state"] in ENDS:
            return str(found["state"])
        time.sleep(POLL_S)


ACTIONS = {
    "start": "Start a rollout that was created.",
    "pause": "Tell no further device; updates under way end as they may.",
    "resume": "Go on with the stage; devices whose update failed try again.",
    "approve": "Let a rollout that waits for approval enter its next stage.",
    "rollback": "Send every device of the rollout back to what it served before.",
}
"""What an operator can do to a rollout -> its line in the help; one command each."""


def _action(name: Any) -> Callable[..., None]:
    def act(
        rollout: RolloutArgument, *, home: HomeOption = None, url: UrlOption = None, token_file: TokenFileOption = None
    ) -> None:
        with open_client(home, url, token_file) as client:
            found = client.act(rollout, name)
        emit(f"{rollout}: {_standing(found)}")

    return act


for _name, _help in ACTIONS.items():
    app.command(_name, help=_help)(_action(_name))


def parse_stage(text: str) -> dict[str, Any]:
    """ "10%:600:approval" as the API spells it. Raises ConfigError."""
    size, *rest = text.split(":")
    approval = bool(rest) and rest[-1] == "approval"
    soak = rest[: len(rest) - approval]
    try:
        reach = {"percent": int(size[:-1])} if size.endswith("%") else {"count": int(size)}
        return {**reach, **({"soak_s": int(soak[0])} if soak else {}), "approval": approval}
    except ValueError as error:
        raise ConfigError(f"--stage {text!r}: write it as SIZE[:SOAK][:approval], such as 10%:600 or 1:60:approval") from error


def _number(option: str, text: str) -> int | float:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is not a number") from error


def _standing(found: "RolloutSummary") -> str:
    return f"{found['state'].replace('_', ' ')}, stage {found['stage'] + 1} of {found['stages']}"


def _line(found: "Rollout") -> str:
    states = [job["state"] for job in found["jobs"]]
    jobs = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    gates = ", ".join(f"{one['gate']} {one['decision']}" for one in found["verdicts"] if one["decision"] != "pass")
    return "; ".join(part for part in (_standing(found), jobs, gates and f"gates: {gates}", found["reason"]) if part)
