"""`toolchain bench`: how fast are artifacts, here or elsewhere, beside one another or under a load?"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json, emit_table

if TYPE_CHECKING:
    from toolchain.benchmark.artifacts import Loaded, Measured
    from toolchain.benchmark.loadgen import Verdict

app = new_app()


class Scenario(StrEnum):
    single = "single"
    multi = "multi"
    server = "server"
    offline = "offline"


@app.command()
def bench(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifact or release directories; the first is the yardstick.")],
    *,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Threads of one inference. Default: each manifest's own.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=4, max=1000, help="Blocks of calls a variant; more give narrower intervals.")] = 90,
    scenario: Annotated[
        Scenario | None, typer.Option(help="A load of MLPerf Inference. Default: latencies, measured in turns.")
    ] = None,
    duration: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds of a scenario.")] = 10.0,
    bound_ms: Annotated[
        float | None,
        typer.Option(min=0.001, help="Latency the server scenario must keep. Default: the manifest's limit, or 10 x the median."),
    ] = None,
    loadgen: Annotated[bool, typer.Option("--loadgen", help="Let MLPerf's own load generator run the scenario.")] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Queries per second of --scenario server --loadgen. Default: searched for.")
    ] = None,
    on: Annotated[str | None, typer.Option(metavar="HOST", help="Measure on this machine, over ssh.")] = None,
    python: Annotated[str, typer.Option(help="The Python on HOST that has edgewright.")] = "python3",
    as_json: JsonOption = False,
) -> None:
    """Measure artifacts: single inferences in turns, so that whatever else the machine does hits all alike, or a scenario."""
    from toolchain.benchmark.artifacts import Load, Place, stress
    from toolchain.benchmark.artifacts import bench as measure
    from toolchain.package.read import read_release
    from toolchain.pipeline.progress import Silent

    _require_sense(scenario, on, loadgen=loadgen, rate=rate)
    found = [artifact for path in artifacts for artifact in read_release(path).artifacts]
    bound_ns = None if bound_ms is None else round(bound_ms * 1_000_000)
    load = Load(threads=threads, blocks=blocks, scenario=scenario, duration_s=duration, bound_ns=bound_ns)
    place = None if on is None else Place(host=on, python=python)
    if loadgen:
        from toolchain.benchmark.loadgen import run_loadgen

        verdicts = [run_loadgen(artifact, load, rate) for artifact in found]
        emit_json(verdicts) if as_json else _show_verdicts(verdicts)
    elif scenario:
        loaded = stress(found, load, place, Silent())
        emit_json(loaded) if as_json else _show_loaded(loaded)
    else:
        measured = measure(found, load, place, Silent())
        emit_json(measured) if as_json else _show_measured(measured)


def _require_sense(scenario: Scenario | None, on: str | None, *, loadgen: bool, rate: float | None) -> None:
    from toolchain.errors import UsageError

    if loadgen and scenario is None:
        raise UsageError("--loadgen: name what it shall run with --scenario single, multi, server or offline")
    if loadgen and on is not None:
        raise UsageError(
            "--loadgen runs on this machine only; on HOST leave it out: the scenario's own figures need no package there"
        )
    if rate is not None and not (loadgen and scenario is Scenario.server):
        raise UsageError("--rate belongs to --scenario server --loadgen; without --loadgen the rate is what is searched for")


def _show_measured(results: "list[Measured]") -> None:
    from toolchain.report.wording import latency, speed, speed_interval

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
    seen = results[0].conditions
    emit(
        f"load {seen['load before']} to {seen['load after']}, own CPU share {seen['own CPU share']}, {seen['priority']} priority"
    )


def _show_loaded(results: "list[Loaded]") -> None:
    rows = [(each.name, each.variant, each.scenario, _result(each.figures)) for each in results]
    emit_table(("artifact", "variant", "scenario", "result"), rows)
    emit("by this project's own generator, shorter than MLPerf's rules want; --loadgen runs MLPerf's")


def _result(figures: "dict[str, object]") -> str:
    from toolchain.report.wording import latency

    value = float(str(figures[str(figures["metric"])]))
    match figures["metric"]:
        case "p90_ns":
            return f"90 % within {latency(value)}, {figures['queries']} queries"
        case "p99_ns":
            return f"99 % within {latency(value)}, {figures['queries']} queries of {figures['samples_per_query']}"
        case "qps":
            bound = latency(float(str(figures["bound_ns"])))
            return f"{value:.1f} queries/s with 99 % within {bound}, {figures['queries']} queries"
        case _:
            return f"{value:.1f} examples/s in batches of {figures['batch']}"


def _show_verdicts(verdicts: "list[Verdict]") -> None:
    for each in verdicts:
        settings = ", ".join(f"{name} {value}" for name, value in each.settings.items())
        emit(f"{each.name}  {each.variant}  {each.scenario}: {'VALID' if each.valid else 'INVALID'}  ({settings})")
        emit_table(("", ""), list(each.summary.items()))
    emit("VALID under these settings, which are shorter than MLPerf's rules want")
