"""`toolchain bundle`: write a published release as one file for devices that cannot reach the fleet."""

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.fleet_options import KeysOption, TokenOption, open_fleet, open_keys
from toolchain.cli.output import emit, emit_json

app = new_app()


@app.command()
def bundle(
    directory: Annotated[Path, typer.Argument(help="The published release: OUT/MODEL/VERSION.")],
    *,
    source: Annotated[str | None, typer.Option("--from", metavar="URL", help="Fleet that holds the signed release.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: MODEL-VERSION.edge here.")
    ] = None,
    keys: KeysOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a side-load file; devices check it exactly as they check the fleet."""
    from toolchain.package.bundle import SUFFIX
    from toolchain.package.bundle import bundle as write_bundle
    from toolchain.package.read import read_release

    release = read_release(directory)
    to = output or Path(f"{release.model}-{release.version}{SUFFIX}")
    with open_fleet(source, token_file) as client:
        done = write_bundle(client, open_keys(keys), release, to)
    if as_json:
        emit_json(done)
    else:
        emit(
            f"{done.path}: {done.model} {done.version} for {', '.join(done.targets)}, {done.size_bytes:,} bytes, good until {done.expires}"
        )
