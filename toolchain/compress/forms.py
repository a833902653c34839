"""Which networks does a recipe ask for beside its own?"""

from toolchain.compress.base import Form
from toolchain.compress.distill import TEACHER_KEY, Distilled
from toolchain.compress.prune import Pruned
from toolchain.errors import RecipeError
from toolchain.recipe import Recipe


def forms_of(recipe: Recipe) -> tuple[Form, ...]:
    """In the order they are made, which is also the order of preference where nothing else decides.

    Raises RecipeError where the recipe's keys lead to no form, or to two of one name.
    """
    settings = recipe.compress
    distills = "distill" in settings.methods
    pruned = [Pruned(ratio=ratio, taught=distills and not settings.teacher) for ratio in settings.prune_ratios]
    wanted: list[Form] = list(pruned) if "prune" in settings.methods else []
    if settings.teacher:
        _require_teachable(recipe)
        wanted.append(Distilled())
    elif distills and not wanted:
        raise RecipeError(f'"distill" in compress.methods needs a network to learn from: name {TEACHER_KEY}, or add "prune"')
    names = [form.name for form in wanted]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"compress.prune_ratios: two of them round to {name!r}, in whole percent")
    return tuple(wanted)


def _require_teachable(recipe: Recipe) -> None:
    if "distill" not in recipe.compress.methods:
        raise RecipeError(f'{TEACHER_KEY}: nothing learns from it; add "distill" to compress.methods')
    if recipe.train is None:
        raise RecipeError(f"{TEACHER_KEY} needs [train]: both networks are trained by its settings")
