"""Which torch network does a recipe name, and what does its code amount to?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.contract.artifact import Step
from toolchain.data.code import callable_in, closure_of, distributions, find_callable, loaded, meaning_digest
from toolchain.errors import BuildError, NetworkError
from toolchain.files import sha256_file
from toolchain.pipeline.stage import digest_of
from toolchain.recipe import ModelSection

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    from torch import nn

KEY = "model.network"
TORCHVISION = "torchvision:"
ONNX = "onnx:"


class NetworkSource:
    """The network of one recipe: "FILE:callable", "package.module:callable" or "torchvision:NAME".

    An option that names a file beside the recipe, such as a checkpoint the callable loads, counts by the file's contents.
    key: of the recipe, for errors. in_graph: steps of processing that become the network's first layer.
    """

    def __init__(self, model: ModelSection, folder: Path, key: str = KEY, *, in_graph: tuple[Step, ...] = ()) -> None:
        self.key = key
        self.in_graph = in_graph
        self.text = model.network
        self.options = model.options
        name = self.text.removeprefix(TORCHVISION)
        text = f"torchvision.models:{name}" if self.text.startswith(TORCHVISION) else self.text
        self.reference = find_callable(text, folder, key)
        closure = closure_of(self.reference)
        files = [folder / value for value in model.options.values() if isinstance(value, str) and (folder / value).is_file()]
        self.code = digest_of([meaning_digest(closure), *map(sha256_file, files)]) if files else meaning_digest(closure)
        self.tools = tuple(sorted({tool for imported in closure.imports for tool in distributions(imported)}))

    @property
    def config(self) -> dict[str, Any]:
        inside = {"in graph": msgspec.to_builtins(self.in_graph)} if self.in_graph else {}
        return {"network": self.reference.attribute, "network options": self.options, **inside}

    def build(self) -> "nn.Module":
        """A fresh network with its initial weights. Raises RecipeError or NetworkError."""
        import torch

        with loaded(self.reference, self.key) as module:
            make = callable_in(module, self.reference, self.key)
            try:
                network = make(**self.options)
            except BuildError:
                raise
            except Exception as error:
                raise NetworkError(
                    f"{self.key} {self.text!r} with options {self.options}: {type(error).__name__}: {error}"
                ) from error
        if not isinstance(network, torch.nn.Module):
            raise NetworkError(f"{self.key} {self.text!r} returned {type(network).__name__}, not a torch.nn.Module")
        if self.in_graph:
            from toolchain.train.first_layer import with_first_layer

            with_first_layer(network, self.in_graph)
        return network


def with_weights(source: NetworkSource, weights: Path) -> "nn.Module":
    """The network with trained weights, in evaluation mode. Raises NetworkError when they belong to another one."""
    import torch

    network = source.build()
    try:
        network.load_state_dict(torch.load(weights, weights_only=True))
    except RuntimeError as error:
        raise NetworkError(f"the network differs from the one that was trained: {error}") from error
    return network.eval()
