"""Is a taught network kept only where it beats the same network, trained alike without a teacher?"""

import pytest

from tests.toolchain.compress.bars import Bars
from toolchain.compress.distill import Distilled
from toolchain.errors import NetworkError, RecipeError
from toolchain.pipeline import stages
from toolchain.pipeline.products import FloatModel, TrainedModel
from toolchain.pipeline.record import EpochResult

WIDE = ('compress.methods=["distill"]', 'compress.teacher="bars.py:network"', "compress.teacher_options={width=32}")
SHORT = ("train.epochs=2", "model.options={width=4}")
"""Too short for the small network to learn the task by itself."""


def best(model: FloatModel | TrainedModel) -> EpochResult:
    assert model.training is not None
    return model.training.history[model.training.best_epoch]


def test_the_control_is_the_same_network_trained_alike(bars: Bars) -> None:
    network = bars.changed(*WIDE, *SHORT)
    form = bars.make(Distilled(), network).value
    assert form.form == "distilled"
    assert form.variant.name == "distilled-onnxruntime-float32"
    assert form.control == best(network.trained.value).metric
    assert form.parameters == sum(weight.numel() for weight in network.load().parameters())
    assert form.training is not None
    assert form.training.seed == network.training.seed
    assert len(form.training.history) == 2


def test_it_is_kept_or_rejected_by_validation_alone(bars: Bars) -> None:
    network = bars.changed(*WIDE, *SHORT)
    form = bars.make(Distilled(), network).value
    taught, alone = best(form), best(network.trained.value)
    helped = (taught.metric, -taught.validation_loss) > (alone.metric, -alone.validation_loss)
    assert (form.rejected == "") is helped
    if not helped:
        assert f"{taught.metric:.4f}" in form.rejected
        assert f"{alone.metric:.4f}" in form.rejected


def test_a_teacher_that_knows_nothing_is_rejected_with_both_figures(bars: Bars) -> None:
    """Its answers are the same for every picture, and most of the loss asks for them."""
    network = bars.changed('compress.methods=["distill"]', 'compress.teacher="bars.py:blind"')
    form = bars.make(Distilled(), network).value
    alone = best(network.trained.value)
    assert alone.metric >= 0.95
    assert form.rejected.startswith("the teacher did not help: validation accuracy")
    assert f"{alone.metric:.4f}" in form.rejected


def test_what_the_teacher_is_decides_the_key(bars: Bars) -> None:
    def key(*changes: str) -> dict[str, object]:
        return stages.form(Distilled(), bars.changed(*WIDE, *changes), bars.base, bars.data).ingredients()

    assert key() == key()
    assert key() != key("compress.teacher_options={width=24}")
    other = key('compress.teacher="bars.py:idle"', "compress.teacher_options={}")
    assert key()["config teacher"] == "network"
    assert other["config teacher"] == "idle"
    assert key()["config teacher code"] == other["config teacher code"]  # the same file


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (('compress.teacher="bars.py:nobody"',), RecipeError, "compress.teacher.*nobody"),
        (("compress.teacher_options={depth=3}",), NetworkError, "compress.teacher.*depth"),
        (
            ('compress.teacher="bars.py:pairs"', "compress.teacher_options={}"),
            NetworkError,
            r"compress.teacher: the teacher's outputs are \[\[2\]\]",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_named(bars: Bars, changes: tuple[str, ...], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        bars.make(Distilled(), bars.changed(*WIDE, "train.epochs=1", *changes))
