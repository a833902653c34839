"""`toolchain build`: parse the flags, run the build, print the outcome."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json

if TYPE_CHECKING:
    from toolchain.pipeline.record import BuildResult, TargetResult

app = new_app()


@app.command()
def build(  # noqa: PLR0917 - one per flag, as typer wants them
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.")],
    target: Annotated[list[str] | None, typer.Option(help="Build only for this profile; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where artifacts go; default: `out` beside the recipe.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated.")
    ] = None,
    evidence: Annotated[Path | None, typer.Option(help="Use the latencies of this evidence.json instead of measuring.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say of every stage why it ran or did not.")] = False,
    json: JsonOption = False,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every input file again, whatever its time and size.")] = False,
    allow_unmeasured: Annotated[
        bool, typer.Option("--allow-unmeasured", help="Accept a latency limit that this host cannot check.")
    ] = False,
) -> None:
    """Compile a recipe into unsigned artifacts and a report; re-runs only what changed."""
    from toolchain.cli.progress import open_progress
    from toolchain.config import setting_path
    from toolchain.pipeline.build import Settings
    from toolchain.pipeline.cache import StageCache
    from toolchain.pipeline.result import run_build

    progress = open_progress(explain=explain)
    settings = Settings(targets=tuple(target or ()), evidence=evidence, allow_unmeasured=allow_unmeasured)
    cache = StageCache(setting_path("cache"), rehash=rehash)
    try:
        result = run_build(recipe, progress, cache=cache, changes=tuple(changes or ()), out=out, settings=settings)
    finally:
        progress.close()
    if json:
        emit_json(result)
    else:
        _show(result)


def _show(result: "BuildResult") -> None:
    ran = sum(stage.ran for stage in result.stages)
    total = len(result.stages)
    model = result.recipe.model
    emit(f"{model.name} {model.version}: {f'{ran} of {total} stages ran' if ran else 'nothing changed'}, {result.seconds:.1f} s")
    for target in result.targets:
        emit(_line(target))
        emit(f"  {target.path}")
    emit(f"  report: {result.out}/report.html")


def _line(target: "TargetResult") -> str:
    figures = ", ".join(
        f"test {item.name} {item.value:.4f} ({item.low:.4f} to {item.high:.4f}, n = {item.n})" for item in target.metrics
    )
    chosen = next(variant for variant in target.variants if variant.name == target.chosen)
    speed = f"p50 {chosen.latency.p50_ns / 1000:.0f} us" if chosen.latency else "unmeasured"
    return f"  {target.target}: {target.chosen}, {speed}, {chosen.size_bytes / 1024:.0f} KiB, {figures}\n    {target.reason}"
