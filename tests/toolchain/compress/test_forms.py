"""Does a recipe lead to the networks it asks for, and is a key that would lead to none refused?"""

from pathlib import Path

import pytest

from tests.toolchain.compress.bars import MODULE, RECIPE
from toolchain.compress.distill import Distilled
from toolchain.compress.forms import forms_of
from toolchain.compress.prune import Pruned
from toolchain.errors import RecipeError
from toolchain.recipe import Recipe, load_recipe


@pytest.fixture
def recipe_of(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "bars.py").write_text(MODULE)

    def load(*changes: str, text: str = RECIPE) -> Recipe:
        (tmp_path / "recipe.toml").write_text(text)
        return load_recipe(tmp_path / "recipe.toml", changes)

    return load


def methods(*names: str) -> str:
    return f"compress.methods=[{', '.join(repr(name) for name in names)}]"


TEACHER = 'compress.teacher="bars.py:network"'


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([methods("quantize")], []),
        ([methods("prune")], ["pruned50"]),
        ([methods("prune"), "compress.prune_ratios=[0.3, 0.625]"], ["pruned30", "pruned62"]),
        ([methods("distill"), TEACHER], ["distilled"]),
        ([methods("quantize", "distill", "prune"), TEACHER], ["pruned50", "distilled"]),
    ],
)
def test_forms_in_their_order(recipe_of, changes: list[str], names: list[str]) -> None:  # type: ignore[no-untyped-def]
    assert [form.name for form in forms_of(recipe_of(*changes))] == names


def test_without_a_teacher_of_its_own_the_trained_network_teaches_its_pruned_forms(recipe_of) -> None:  # type: ignore[no-untyped-def]
    assert forms_of(recipe_of(methods("prune", "distill"))) == (Pruned(ratio=0.5, taught=True),)
    assert forms_of(recipe_of(methods("prune", "distill"), TEACHER)) == (Pruned(ratio=0.5, taught=False), Distilled())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([methods("distill")], 'name compress.teacher, or add "prune"'),
        ([methods("prune"), TEACHER], 'compress.teacher: nothing learns from it; add "distill"'),
        ([methods("prune"), "compress.prune_ratios=[0.501, 0.499]"], "compress.prune_ratios: two of them round to 'pruned50'"),
    ],
)
def test_keys_that_lead_to_nothing_are_refused(recipe_of, changes: list[str], says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError, match=says):
        forms_of(recipe_of(*changes))


def test_a_teacher_needs_a_training(recipe_of) -> None:  # type: ignore[no-untyped-def]
    untrained = RECIPE[: RECIPE.index("[train]")] + RECIPE[RECIPE.index("[compress]") :]
    with pytest.raises(RecipeError, match=r"compress.teacher needs \[train\]"):
        forms_of(recipe_of(methods("distill"), TEACHER, text=untrained))


def test_an_onnx_file_has_no_forms(recipe_of) -> None:  # type: ignore[no-untyped-def]
    untrained = RECIPE[: RECIPE.index("[train]")] + RECIPE[RECIPE.index("[compress]") :]
    with pytest.raises(RecipeError, match="an ONNX file cannot be trained again; leave out prune"):
        recipe_of('model.network="onnx:model.onnx"', text=untrained)
