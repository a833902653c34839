"""`toolchain bench`: how fast are artifacts on this machine, beside one another?"""

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit_json, emit_table

app = new_app()


@app.command()
def bench(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifact or release directories; the first is the yardstick.")],
    *,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Threads of one inference. Default: each manifest's own.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=4, max=1000, help="Rounds; more give narrower intervals.")] = 90,
    as_json: JsonOption = False,
) -> None:
    """Measure single inferences in turns, so that whatever else the machine does hits all alike."""
    from toolchain.benchmark.artifacts import bench as measure
    from toolchain.package.read import read_release
    from toolchain.pipeline.progress import Silent
    from toolchain.report.wording import latency, speed, speed_interval

    found = [artifact for path in artifacts for artifact in read_release(path).artifacts]
    results = measure(found, threads, blocks, Silent())
    if as_json:
        emit_json(results)
        return
    rows = [
        (
            each.name,
            each.variant,
            latency(each.latency.p50_ns),
            latency(each.latency.p90_ns),
            latency(each.latency.p99_ns),
            speed(each.latency),
            speed_interval(each.latency),
        )
        for each in results
    ]
    emit_table(("artifact", "variant", "p50", "p90", "p99", "speed", "95 % interval"), rows)
