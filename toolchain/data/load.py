"""The first stage: run the recipe's data source, check what it returns, keep it."""

from pathlib import Path

import msgspec

from runtime.processing.catalogue import REVISION as PROCESSING_REVISION
from toolchain.data.source import DataSource
from toolchain.pipeline.products import DataSplits
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Runner, Stage, Stored
from toolchain.recipe import Recipe, processing_of

REVISION = 2


def load_data(runner: Runner, recipe: Recipe, folder: Path) -> Stored[DataSplits]:
    """The checked splits of a recipe. folder: where the recipe lies. Raises DataError or RecipeError."""
    source = DataSource(recipe.data.source, recipe.data.options, folder, runner.cache)

    pre = processing_of(recipe).pre

    def make(work: Path, progress: Progress) -> DataSplits:
        from toolchain.data.processed import processed
        from toolchain.data.splits import prepare

        splits = prepare(source.run(lambda result: processed(result, pre)), recipe.model.output_kind, work)
        for note in splits.notes:
            progress.note(note)
        return splits

    def stage() -> Stage[DataSplits]:
        inputs, tools, _ = source.inputs()
        steps = {"processing": msgspec.to_builtins(pre), "processing revision": PROCESSING_REVISION} if pre else {}
        return Stage(
            name="load data", revision=REVISION, kind=DataSplits, make=make, inputs=inputs, tools=("numpy", *tools),
            config={"callable": source.reference.attribute, "options": recipe.data.options, "output_kind": recipe.model.output_kind, **steps},
            summary=_summary,
        )  # fmt: skip

    _, _, distrust = source.inputs()
    return runner.execute(stage(), distrust=distrust, settle=stage)


def _summary(splits: DataSplits) -> str:
    steering = splits.steering
    return f"{steering.train.rows} train, {steering.validation.rows} validation, {splits.held_out.test.rows} test"
