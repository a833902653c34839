"""How does one `toolchain build` run from recipe file to output folder, report and tracking, and what does it hand back?

Nothing under OUT changes before every stage has succeeded; each artifact directory is replaced whole.
"""

import datetime
import hashlib
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from toolchain.errors import LimitError, UsageError
from toolchain.files import files_below, install_folder, sha256_file
from toolchain.offline import keep_offline
from toolchain.pipeline.build import Build, Finished, NoneFitsError, Outcome, Settings
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import BuildResult, DataSummary, StageRun, TargetResult
from toolchain.pipeline.stage import Runner, digest_of
from toolchain.recipe import load_recipe
from toolchain.targets import this_host
from toolchain.tune.search import tuned

REPORT_NAME = "report.html"
NEAREST = "nearest"
"""Folder beside the releases for models that missed a limit."""
TRACKED = "tracked"
"""Under this name the cache remembers which build of a project was tracked last, so that none is left out or told twice."""


def run_build(
    path: Path,
    progress: Progress,
    *,
    cache: StageCache,
    changes: tuple[str, ...] = (),
    out: Path | None = None,
    settings: Settings | None = None,
) -> BuildResult:
    """Build a recipe file. changes: `key=value` over the recipe; out: default is `out` beside it. Raises BuildError and others."""
    keep_offline()
    started, started_at = time.monotonic(), datetime.datetime.now(datetime.UTC)
    path = path.absolute()
    recipe = load_recipe(path, changes)
    host, settings = this_host(), settings or Settings()
    runner = Runner(cache, progress, project=hashlib.sha256(f"{path}\0{recipe.model.name}".encode()).hexdigest())
    release = (out or path.parent / "out") / recipe.model.name / recipe.model.version
    try:
        search = tuned(recipe, path, settings, runner, host)
        outcome = Build(search.recipe, path.parent, settings, runner, host).run()
    except NoneFitsError as error:
        raise LimitError(f"{search.explain(str(error))}; saved as {_save_nearest(error, release)}, not to be released") from error
    finally:
        cache.hashes.save()
    installed = _install(outcome, release)
    result = BuildResult(
        build=outcome.build,
        recipe=search.recipe,
        recipe_path=str(path),
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
        stages=_once((*search.runs, *runner.runs)),
        data=_data(outcome),
        training=outcome.training,
        forms=outcome.forms,
        tuning=search.result,
        targets=tuple(_target(item, release) for item in outcome.targets),
        environment={"python": platform.python_version(), **dict(sorted(runner.environment.items()))},
        host=host.describe(),
        out=str(release),
        notes=outcome.notes,
        changes=changes,
    )
    if result.ran or installed or not (release / REPORT_NAME).exists():
        _report(result, release)
    tracked = digest_of([outcome.build, search.digest]) if search.digest else outcome.build
    if runner.cache.last_key(runner.project, TRACKED) != tracked:
        _track(result)
        runner.cache.set_last(runner.project, TRACKED, tracked)
    return result


def _once(runs: Sequence[StageRun]) -> tuple[StageRun, ...]:
    """Each stage's first run: a search has loaded the data before the build asks for it again."""
    return tuple({run.key: run for run in reversed(runs)}[key] for key in dict.fromkeys(run.key for run in runs))


def _install(outcome: Outcome, release: Path) -> bool:
    """Bring every package to the output folder; returns whether anything there had to change."""
    changed = False
    for item in outcome.targets:
        final = release / item.tried.target.profile
        if _digests(final) != _digests(item.package.folder):
            try:
                install_folder(item.package.folder, final)
            except OSError as error:
                raise UsageError(f"--out {final}: cannot be written: {error.strerror}") from error
            changed = True
    return changed


def _save_nearest(error: NoneFitsError, release: Path) -> Path:
    """Keep the model that came closest beside the releases, never among them: nothing there is an artifact."""
    variant = error.nearest
    final = release.parent.parent / NEAREST / release.parent.name / release.name / error.target
    with tempfile.TemporaryDirectory() as work:
        for name in variant.value.files:
            shutil.copyfile(variant.folder / name, Path(work) / name)
        (Path(work) / "why.txt").write_text(f"{variant.value.name}\n{error}\n", encoding="utf-8")
        try:
            install_folder(Path(work), final)
        except OSError as cause:
            raise UsageError(f"--out {final}: cannot be written: {cause.strerror}") from cause
    return final


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in files_below(folder)} if folder.is_dir() else {}


def _track(result: BuildResult) -> None:
    from toolchain.tracking import track

    track(result)


def _report(result: BuildResult, release: Path) -> None:
    from toolchain.report.write import write_report

    write_report(result, release / REPORT_NAME)


def _data(outcome: Outcome) -> DataSummary:
    splits = outcome.splits
    steering = splits.steering
    sizes = {"train": steering.train.rows, "validation": steering.validation.rows, "test": splits.held_out.test.rows}
    return DataSummary(
        fingerprint=splits.fingerprint, sizes=sizes, inputs=steering.inputs, classes=steering.classes,
        class_counts=splits.class_counts, notes=splits.notes,
    )  # fmt: skip


def _target(item: Finished, release: Path) -> TargetResult:
    tried = item.tried
    return TargetResult(
        target=tried.target.profile,
        profile=tried.target.profile,
        measured=tried.measured,
        max_latency_ms=tried.target.max_latency_ms,
        chosen=tried.choice.value.chosen,
        reason=tried.choice.value.reason,
        variants=tried.results(),
        metrics=item.tested.metrics,
        confusion=item.tested.confusion,
        manifest_sha256=item.package.value.manifest_sha256,
        path=str(release / tried.target.profile),
        drop=item.tested.drop,
        resolution=item.tested.resolution,
        slices=item.tested.slices,
        lineage=item.lineage,
    )
