"""`toolchain publish`: sign a built release and bring it to a fleet."""

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.fleet_options import FleetOption, KeysOption, TokenOption, open_fleet, open_keys
from toolchain.cli.output import emit, emit_json, say

app = new_app()


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(help="What `toolchain build` wrote: OUT/MODEL/VERSION.")],
    *,
    to: FleetOption = None,
    keys: KeysOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file, sign the manifests, upload. Publishing the same release again changes nothing."""
    from datetime import UTC, datetime

    from toolchain.package.publish import publish as publish_release

    with open_fleet(to, token_file) as client:
        done = publish_release(client, open_keys(keys), directory, datetime.now(UTC), say)
    if as_json:
        emit_json(done)
    elif done.added:
        emit(
            f"published {done.model} {done.version} for {', '.join(done.added)} (model-{done.model} version {done.role_version})"
        )
    else:
        emit(f"{done.model} {done.version} is published already for {', '.join(done.present)}: nothing to do")
