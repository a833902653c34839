"""What does a training start from: which weights of a file fit the network, and which of its parts stay as they are?"""

import difflib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import RecipeError
from toolchain.pipeline.progress import Progress

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    import torch
    from torch import nn

WEIGHTS_KEY = "train.weights"
FREEZE_KEY = "train.freeze"
SUFFIXES = (".pt", ".pth")
_INSIDE = ("state_dict", "model_state_dict", "model")
"""Under which names training scripts commonly save the weights among other things."""
_NAMED = 5


def weights_file(text: str, folder: Path) -> Path:
    """The file `train.weights` names. Raises RecipeError when there is no such file."""
    path = (folder / text).resolve()
    if path.suffix not in SUFFIXES:
        raise RecipeError(f"{WEIGHTS_KEY}: {text!r} is not one of {', '.join(SUFFIXES)}, as torch.save writes them")
    if not path.is_file():
        raise RecipeError(f"{WEIGHTS_KEY}: there is no file {text!r} in {folder}")
    return path


def start_from(network: "nn.Module", path: Path, progress: Progress) -> None:
    """Take over every tensor of the file that the network has by that name and shape; what is left out is said aloud.

    Raises RecipeError when the file holds no weights, or none that fit.
    """
    own = network.state_dict()
    given = _read(path)
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise RecipeError(
            f"{WEIGHTS_KEY}: nothing in {path.name} fits the network: it holds {_list(sorted(given))}; "
            f"the network has {_list(sorted(own))}"
        )
    network.load_state_dict(fitting, strict=False)
    reshaped = sorted(name for name in given if name in own and name not in fitting)
    for names, what in (
        (reshaped, f"of {len(given)} tensors have another shape in the network and were skipped"),
        (sorted(given.keys() - own.keys()), f"of {len(given)} tensors are not in the network and were skipped"),
        (sorted(own.keys() - given.keys()), "of the network's tensors are not in the file and begin anew"),
    ):
        if names:
            progress.note(f"{WEIGHTS_KEY} {path.name}: {len(names)} {what}: {_list(names)}")


def freeze(network: "nn.Module", prefixes: Sequence[str]) -> None:
    """Parameters below these parts of the network shall not change. Raises RecipeError for a part it does not have."""
    named = dict(network.named_parameters())
    for prefix in prefixes:
        part = prefix.rstrip(".")
        below = [weight for name, weight in named.items() if name == part or name.startswith(f"{part}.")]
        if not below:
            parts = {".".join(name.split(".")[:depth]) for name in named for depth in range(1, name.count(".") + 2)}
            close = difflib.get_close_matches(part, sorted(parts), n=1, cutoff=0)
            raise RecipeError(f"{FREEZE_KEY}: the network has no parameters below {prefix!r}; nearest is {close[0]!r}")
        for weight in below:
            weight.requires_grad_(False)
    if prefixes and not any(weight.requires_grad for weight in named.values()):
        raise RecipeError(f"{FREEZE_KEY}: {', '.join(prefixes)} leave nothing of the network to train")


def _read(path: Path) -> "dict[str, torch.Tensor]":
    import torch

    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RecipeError(
            f"{WEIGHTS_KEY}: {path.name} holds more than tensors, and loading it would run its code; "
            "save it again as torch.save(network.state_dict(), FILE)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise RecipeError(f"{WEIGHTS_KEY}: {path.name} cannot be read as weights: {_first_line(error)}") from error
    for name in _INSIDE:
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
    tensors = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)} if isinstance(held, dict) else {}
    if not tensors:
        raise RecipeError(
            f"{WEIGHTS_KEY}: {path.name} holds no tensors by name; save it as torch.save(network.state_dict(), FILE)"
        )
    return tensors


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
