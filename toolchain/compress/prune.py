"""How does a network become narrower? Whole channels go, those with the smallest weights first, and the rest is trained again.

What torch-pruning removes follows the network's dependencies: a channel goes from every layer that shares it. How much work that
saves is counted, not assumed: the ratio is searched until the network has the share of multiplications that a uniform cut by
`compress.prune_ratios` leaves. Latency decides one step later: every ratio is a form of its own, and all are measured interleaved
with the other variants. A search by the clock in here would make another network on another day.
"""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from toolchain.compress.base import Network
from toolchain.compress.retrain import Retraining, finetuning, is_better
from toolchain.errors import NetworkError
from toolchain.pipeline.products import FloatModel, SteeringData
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stored
from toolchain.quiet import silenced

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    import torch
    from torch import nn

    Examples = tuple[torch.Tensor, ...]

ALIGNMENTS = (8, 4, 1)
"""Channel counts are multiples of these, the first that comes near enough: engines compute 4 to 16 channels at once and leave
the rest of a vector idle. Source: oneDNN's and MLAS's blocked layouts."""
NEAR_ENOUGH = 0.05
"""Share of the wanted multiplications by which an aligned network may differ from it."""
_HALVINGS = 5


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """The trained network without `ratio` of its channels. taught: also tried with the whole network as teacher."""

    ratio: float
    taught: bool
    revision: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("torch-pruning",)

    @property
    def name(self) -> str:
        return f"pruned{round(100 * self.ratio)}"

    def config(self, network: Network) -> dict[str, Any]:
        return {"ratio": self.ratio, "taught": self.taught, "finetune epochs": network.recipe.compress.finetune_epochs}

    def make(
        self, network: Network, base: Stored[FloatModel], data: Stored[SteeringData], work: Path, progress: Progress
    ) -> FloatModel:
        """Raises NetworkError where torch-pruning cannot follow the network, or finds nothing to remove."""
        from toolchain.train.randomness import reproducible

        retraining = Retraining(network=network, data=data, settings=finetuning(network))
        if network.recipe.train is None:
            progress.note(
                f"{self.name}: the recipe has no [train]; its channels were cut and it was trained again for "
                f"{retraining.settings.epochs} epochs by the defaults (compress.finetune_epochs sets how many)"
            )
        try:
            with reproducible(retraining.settings.seed, retraining.settings.threads):
                narrow = prune(network.load(), retraining.examples(2), self.ratio)
        except NetworkError as error:
            raise NetworkError(f'{self.name}: {error}; leave "prune" out of compress.methods') from error
        made = retraining.run(lambda: copy.deepcopy(narrow), progress)
        if not self.taught:
            return retraining.keep(self.name, made, work)
        control = made.best
        taught = retraining.run(lambda: narrow, progress, teacher=network.load())
        helps = is_better(network.metric, taught.best, control)
        return retraining.keep(self.name, taught if helps else made, work, control=control.metric)


def prune(network: "nn.Module", examples: "Examples", ratio: float) -> "nn.Module":
    """A narrower copy, in evaluation mode, whose outputs have the same shapes. examples: inputs in the network's order.

    Raises NetworkError saying why there is none.
    """
    whole = _macs(network, examples)
    wanted = _macs(_cut(network, examples, ratio, 1), examples)
    if wanted >= whole:
        raise NetworkError("no layer of the network has channels that its outputs could do without")
    for alignment in ALIGNMENTS:
        found, macs = _nearest(network, examples, ratio, alignment, wanted)
        if abs(macs - wanted) <= NEAR_ENOUGH * wanted:
            return found
    raise AssertionError("unaligned, the uniform cut is the wanted one")


def _nearest(
    network: "nn.Module", examples: "Examples", ratio: float, alignment: int, wanted: float
) -> "tuple[nn.Module, float]":
    """Halve the interval of ratios: rounding to whole groups of channels always removes more, so the ratio lies below."""
    low, high = 0.0, ratio
    found = _cut(network, examples, high, alignment)
    macs = _macs(found, examples)
    for _ in range(_HALVINGS):
        if macs == wanted:
            break
        middle = (low + high) / 2
        other = _cut(network, examples, middle, alignment)
        count = _macs(other, examples)
        low, high = (middle, high) if count > wanted else (low, middle)
        if abs(count - wanted) < abs(macs - wanted):
            found, macs = other, count
    return found, macs


def _cut(network: "nn.Module", examples: "Examples", ratio: float, alignment: int) -> "nn.Module":
    import torch
    from torch_pruning import BasePruner
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    narrow = copy.deepcopy(network)
    with _tracing():
        before = _shapes(narrow, examples)
        pruner = BasePruner(
            narrow, examples, importance=GroupMagnitudeImportance(p=2), pruning_ratio=ratio, round_to=alignment,
            ignored_layers=_heads(narrow, examples),
        )  # fmt: skip
        pruner.step()
        if _shapes(narrow, examples) != before:
            raise NetworkError("torch-pruning would change the shape of the network's outputs")
    for weight in narrow.parameters():
        weight.grad = None
    with torch.no_grad():
        return narrow.eval()


def _heads(network: "nn.Module", examples: "Examples") -> "list[nn.Module]":
    """The layers whose channels are the network's outputs."""
    from torch import nn
    from torch_pruning import DependencyGraph

    graph = DependencyGraph().build_dependency(network, example_inputs=examples)
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    heads: list[nn.Module] = []
    for group in graph.get_all_groups(root_module_types=kinds):
        shared = [dependency.target for dependency, _ in group if graph.is_out_channel_pruning_fn(dependency.handler)]
        if any(not node.outputs for node in shared):
            heads += [node.module for node in shared if isinstance(node.module, kinds)]
    return heads


def _macs(network: "nn.Module", examples: "Examples") -> float:
    from torch_pruning.utils import count_ops_and_params

    with _tracing():
        macs, _ = count_ops_and_params(network, examples)
    return float(macs)


def _shapes(network: "nn.Module", examples: "Examples") -> list[tuple[int, ...]]:
    import torch

    from toolchain.train.loss import as_outputs

    with torch.no_grad():
        return [tuple(output.shape) for output in as_outputs(network(*examples))]


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """torch-pruning prints and warns about what it wraps; what it cannot do comes as one of many kinds of exceptions."""
    try:
        with silenced():
            yield
    except NetworkError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise NetworkError(f"torch-pruning cannot follow the network ({type(error).__name__}: {first})") from error
