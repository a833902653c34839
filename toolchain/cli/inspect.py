"""`toolchain inspect`: what is in an artifact, and what was it made from?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json, emit_table

if TYPE_CHECKING:
    from toolchain.package.read import Artifact

app = new_app()


@app.command()
def inspect(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifact or release directories.")], as_json: JsonOption = False
) -> None:
    """Check every digest, then show contents, figures and lineage."""
    from toolchain.package.read import read_release

    found = [artifact for path in artifacts for artifact in read_release(path).artifacts]
    if as_json:
        emit_json(
            [
                {"path": str(a.path), "sha256": a.manifest.sha256, "manifest": a.manifest.value, "evidence": a.evidence.value}
                for a in found
            ]
        )
        return
    for artifact in found:
        _show(artifact)


def _show(artifact: "Artifact") -> None:
    from toolchain.package.compare import chosen_latency
    from toolchain.report.wording import latency, size

    manifest, evidence = artifact.manifest.value, artifact.evidence.value
    requires = manifest.requires
    emit(f"{manifest.model} {manifest.version} for {artifact.target}: {manifest.variant}")
    rows = [
        ("manifest", artifact.manifest.sha256),
        ("needs", f"{requires.arch}, {requires.engine} >= {requires.engine_range.at_least}, < {requires.engine_range.below}"),
        ("CPU flags", ", ".join(requires.instruction_sets) or "none"),
    ]
    rows += [(f"input {spec.name}", f"{spec.datatype} {list(spec.shape)} {spec.layout}".rstrip()) for spec in manifest.inputs]
    rows += [(f"output {spec.name}", f"{spec.datatype} {list(spec.shape)}") for spec in manifest.outputs]
    rows += [
        (
            f"{m.split} {m.name}",
            f"{m.value} ({m.interval[0]} to {m.interval[1]}, n = {m.n})" if m.interval else f"{m.value} (n = {m.n})",
        )
        for m in manifest.metrics
    ]
    if measured := chosen_latency(artifact):
        rows.append(
            ("latency", f"p50 {latency(measured.p50_ns)}, p90 {latency(measured.p90_ns)}, {measured.ratio:.2f}x float's speed")
        )
    else:
        rows.append(("latency", "not measured on a device of this profile"))
    rows += [(name, getattr(manifest.lineage, name)) for name in ("recipe", "data", "code", "lock")]
    lineage = manifest.lineage
    rows += [
        ("seeds", ", ".join(map(str, lineage.seeds))),
        ("bits depend on", ", ".join(lineage.conditions) or "the above alone"),
    ]
    rows += [("built", evidence.started_at)]
    rows += [(f"tracking {name}", value) for name, value in evidence.tracking.items()]
    rows += [(entry.name, f"{size(entry.size_bytes)}  {entry.sha256}") for entry in manifest.files]
    emit_table(("", ""), rows)
