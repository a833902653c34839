"""Which commands make this build again, look into it, and replay its choice on another machine?"""

import shlex
from pathlib import Path

import msgspec

from runtime.contract.artifact import EVIDENCE_NAME
from toolchain.pipeline.record import BuildResult


class Command(msgspec.Struct, frozen=True):
    """A line for a shell, run in the recipe's folder, and what it is for."""

    line: str
    purpose: str


def commands(result: BuildResult) -> list[Command]:
    """From the same inputs to the same bytes, with and without measuring again."""
    recipe = Path(result.recipe_path)
    out = _relative(Path(result.out), recipe.parent)
    own = [part for change in result.changes for part in ("--set", change)]
    build = ["toolchain", "build", recipe.name, *own, *_targets(result)]
    found = [
        Command(shlex.join([*build, "--explain"]), "builds again; latencies are measured anew and may choose otherwise"),
    ]
    for target in result.targets:
        if target.measured:
            evidence = str(out / target.target / EVIDENCE_NAME)
            line = shlex.join(["toolchain", "build", recipe.name, *own, "--target", target.target, "--evidence", evidence])
            found.append(Command(line, f"replays the choice for {target.target} from the figures signed with it"))
    found += [
        Command(shlex.join(["toolchain", "inspect", str(out)]), "checks every digest and shows contents and lineage"),
        Command(shlex.join(["toolchain", "compare", str(out), "OTHER"]), "shows what differs from another version"),
    ]
    return found


def _targets(result: BuildResult) -> list[str]:
    """--target for a build of some of the recipe's targets only."""
    built = [target.profile for target in result.targets]
    if built == [target.profile for target in result.recipe.targets]:
        return []
    return [part for name in built for part in ("--target", name)]


def _relative(out: Path, folder: Path) -> Path:
    """Below the recipe's folder as people would type it; elsewhere as it is."""
    return out.relative_to(folder) if out.is_relative_to(folder) else out
