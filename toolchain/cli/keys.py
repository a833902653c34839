"""`toolchain keys`: make, show and rotate signing keys, and let a fleet's service act under them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.fleet_options import FleetOption, KeysOption, TokenOption, open_fleet, open_keys
from toolchain.cli.output import emit, emit_json, emit_table
from toolchain.config import setting_path

app = new_app("Signing keys and trust root.")

Directory = Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="Folder of signing keys and trust root.")]


class RotatedRole(StrEnum):
    ROOT = "root"
    TARGETS = "targets"


@app.command()
def create(folder: Directory = None, as_json: JsonOption = False) -> None:
    """Make the root and targets keys and the trust root that `fleet init --root` takes."""
    from datetime import UTC, datetime

    from toolchain.package.authorize import create_root

    keys = open_keys(folder)
    create_root(keys, datetime.now(UTC))
    ids = {role: keys.public_key(role).keyid for role in keys.roles()}
    if as_json:
        emit_json({"root": str(keys.seed), "keys": ids})
        return
    emit(f"{keys.seed}  trust root, public: fleet init --root {keys.seed}")
    for role, keyid in ids.items():
        emit(f"{keys.path / role}.key  {keyid[:16]}  secret, never leaves this machine")


@app.command()
def authorize(
    to: FleetOption = None, keys: KeysOption = None, token_file: TokenOption = None, as_json: JsonOption = False
) -> None:
    """Let a fleet's service sign snapshots, timestamps and desired states; run it again to renew what expires."""
    from datetime import UTC, datetime

    from toolchain.package.authorize import authorize as authorize_service

    with open_fleet(to, token_file) as client:
        result = authorize_service(client, open_keys(keys), datetime.now(UTC))
    if as_json:
        emit_json(result)
        return
    emit(
        f"root version {result.root_version}, targets version {result.targets_version}"
        + ("" if result.changed else ": no change")
    )
    emit_table(("role", "key of the service"), [(role, keyid[:16]) for role, keyid in result.ids.items()])


@app.command()
def rotate(
    role: Annotated[RotatedRole, typer.Argument(help="Whose key to replace.")],
    to: FleetOption = None,
    keys: KeysOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a signing key; devices follow on their next update."""
    from datetime import UTC, datetime

    from toolchain.package.authorize import rotate as rotate_key

    with open_fleet(to, token_file) as client:
        key = rotate_key(client, open_keys(keys), role.value, datetime.now(UTC))
    if as_json:
        emit_json({"role": role.value, "keyid": key.keyid})
    else:
        emit(f"{role.value} is now signed by {key.keyid[:16]}")


@app.command()
def show(folder: Directory = None, as_json: JsonOption = False) -> None:
    """The keys held here, and what the trusted root says of them."""
    from toolchain.package.keys import KeyFolder
    from toolchain.package.trusted import describe

    summary = describe(KeyFolder(setting_path("keys", folder)))
    if as_json:
        emit_json(summary)
        return
    emit(f"{summary.path}: trust root sha256 {summary.seed_sha256}")
    rows = [
        (
            role.name,
            role.version or "-",
            role.expires or "-",
            ", ".join(keyid[:16] for keyid in role.keyids),
            "yes" if role.is_held else "no",
        )
        for role in summary.roles
    ]
    emit_table(("role", "version", "expires", "keys", "held here"), rows)
