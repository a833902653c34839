"""Which networks does a recipe ask for beside its own?"""

from toolchain.compress.base import Form
from toolchain.recipe import Recipe


def forms_of(recipe: Recipe) -> tuple[Form, ...]:
    """In the order they are made, which is also the order of preference where nothing else decides."""
    return ()
