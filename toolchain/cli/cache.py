"""`toolchain cache`: what the stage cache holds, and making it smaller."""

import time
from collections import defaultdict
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json, emit_table

DAY_S = 86_400
KIB = 1024

app = new_app("Show or shrink the stage cache.")


@app.command()
def show(json: JsonOption = False) -> None:
    """List what is cached, by stage."""
    from toolchain.config import setting_path
    from toolchain.pipeline.cache import StageCache
    from toolchain.pipeline.upkeep import Item, items

    cache = StageCache(setting_path("cache"))
    found = items(cache)
    if json:
        emit_json({"root": str(cache.root), "entries": found})
        return
    stages: dict[str, list[Item]] = defaultdict(list)
    for item in found:
        stages[item.stage or "(unreadable)"].append(item)
    rows = [
        (stage, len(group), f"{sum(item.size_bytes for item in group) // KIB} KiB", _day(max(item.used_at for item in group)))
        for stage, group in sorted(stages.items())
    ]
    emit_table(("stage", "entries", "size", "last used"), rows)
    emit(f"{len(found)} entries, {sum(item.size_bytes for item in found) // KIB} KiB in {cache.root}")


@app.command()
def gc(
    days: Annotated[float, typer.Option(min=0, help="Drop what no build used for this many days.")] = 30,
    everything: Annotated[bool, typer.Option("--all", help="Drop every entry.")] = False,
    json: JsonOption = False,
) -> None:
    """Drop old, unreadable and half-made entries; the next build makes again what it needs."""
    from toolchain.config import setting_path
    from toolchain.pipeline.cache import StageCache
    from toolchain.pipeline.upkeep import collect

    cache = StageCache(setting_path("cache"))
    removed = collect(cache, unused_since=float("inf") if everything else time.time() - days * DAY_S)
    if json:
        emit_json(removed)
    else:
        emit(f"dropped {removed.entries} entries, {removed.size_bytes // KIB} KiB")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
