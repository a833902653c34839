"""`fleet device`: who is in the fleet."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleet.cli.options import HomeOption, JsonOption, TokenFileOption, UrlOption, new_app, open_client
from fleet.cli.output import emit, emit_json, emit_table, moment

if TYPE_CHECKING:
    from fleet.client.documents import Device

app = new_app("List, show and revoke devices.")

DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.")]


@app.command("list")
def list_(
    *, home: HomeOption = None, url: UrlOption = None, token_file: TokenFileOption = None, as_json: JsonOption = False
) -> None:
    """Every device with what it serves."""
    with open_client(home, url, token_file) as client:
        found = list(client.devices())
    if as_json:
        emit_json(found)
    else:
        emit_table(("device", "state", "serves", "reported"), [_row(device) for device in found])


@app.command()
def show(
    device: DeviceArgument,
    *,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """One device: labels, profile, wanted and served artifacts, drift."""
    with open_client(home, url, token_file) as client:
        found, drift = client.device(device), client.drift(device)
    if as_json:
        emit_json({**found, "drift": drift["models"]})
        return
    emit(f"{found['id']}: {_state(found)}, labels {_labels(found['labels'])}, enrolled {moment(found['enrolled_ms'])}")
    for reason in found["health"]["reasons"]:
        emit(f"  {reason}")
    profile = found["profile"]
    if profile:
        engines = ", ".join(f"{name} {version}" for name, version in profile["engines"].items())
        emit(f"profile {', '.join(profile['profiles'])} ({profile['arch']}; {engines})")
    emit(f"generation {found['generation']}, applied {found['applied_generation']}, reported {moment(found['reported_ms'])}")
    for model in found["models"]:
        failure = f": {model['error_code']} {model['error_detail']}" if model["error_code"] else ""
        emit(f"{model['model']} {model['version'] or '-'} in slot {model['slot'] or '-'}, {model['state']}, "
             f"last update {model['outcome']}{failure}")  # fmt: skip
    for judged in drift["models"]:
        alarmed = [stream["name"] for stream in judged["streams"] if stream["is_alarmed"]]
        emit(f"{judged['model']} drift: {judged['state']}{': ' + ', '.join(alarmed) if alarmed else ''}")


@app.command()
def revoke(device: DeviceArgument, *, home: HomeOption = None, url: UrlOption = None, token_file: TokenFileOption = None) -> None:
    """Bar a device for ever: from the broker, the door and every rollout."""
    with open_client(home, url, token_file) as client:
        client.revoke_device(device)
    emit(f"{device} is revoked")


def _row(device: "Device") -> tuple[str, str, str, str]:
    serves = ", ".join(f"{model['model']} {model['version'] or '-'}" for model in device["models"]) or "-"
    return device["id"], _state(device), serves, moment(device["reported_ms"])


def _state(device: "Device") -> str:
    level = device["health"]["level"]
    return "online" if level == "ok" else f"online, {level}" if level == "attention" else str(level)


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "none"
