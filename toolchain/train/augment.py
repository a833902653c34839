"""How does a recipe's own transform of training batches come about?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain.data.code import callable_in, find_callable, loaded
from toolchain.errors import BuildError, RecipeError
from toolchain.recipe import TrainSection
from toolchain.train.step import Augment

AUGMENT_KEY = "train.augment"


@contextmanager
def pick_augment(settings: TrainSection, folder: Path) -> Iterator[Augment | None]:
    """What the recipe's "FILE:callable" returns, such as a transform of torchvision.transforms.v2; None where it names none.

    The transform takes a batch's inputs and draws from torch's, NumPy's or Python's own generator, which the seed fixes.
    """
    if not settings.augment:
        yield None
        return
    reference = find_callable(settings.augment, folder, AUGMENT_KEY)
    with loaded(reference, AUGMENT_KEY) as module:
        try:
            transform = callable_in(module, reference, AUGMENT_KEY)()
        except BuildError:
            raise
        except Exception as error:
            raise RecipeError(f"{AUGMENT_KEY}: {settings.augment!r} fails: {type(error).__name__}: {error}") from error
        if not callable(transform):
            raise RecipeError(f"{AUGMENT_KEY}: {settings.augment!r} returned {type(transform).__name__}; expected a transform")
        yield transform
