"""What may a form or a scheme work from, and what must each offer?

A form is a network of its own (pruned, distilled), trained or recovered, as float ONNX. A scheme turns the float ONNX of a form
into what one engine runs best. Both are values; to add one, write a module and add it to `forms.forms_of` or `schemes.SCHEMES`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from toolchain.benchmark.metrics import Metric
from toolchain.pipeline.products import BASE, FloatModel, Precision, SteeringData, TrainedModel, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stored
from toolchain.recipe import CompressSection, Method, Recipe, TrainSection
from toolchain.train.network import NetworkSource

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    from torch import nn

    from toolchain.train.loss import Loss


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The recipe's own torch network with its trained weights, for what has to see or train it again."""

    recipe: Recipe
    folder: Path
    source: NetworkSource
    trained: Stored[TrainedModel]
    metric: Metric

    def load(self) -> "nn.Module":
        """A fresh copy in evaluation mode."""
        from toolchain.train.network import with_weights

        return with_weights(self.source, self.trained.folder / self.trained.value.weights)

    @property
    def training(self) -> TrainSection:
        """The recipe's own settings; a network that came with its weights is fine-tuned by the defaults."""
        return self.recipe.train or TrainSection(epochs=1)

    @contextmanager
    def loss(self) -> "Iterator[Loss]":
        from toolchain.train.loss import pick_loss

        with pick_loss(self.training, self.recipe.model.output_kind, self.folder) as loss:
            yield loss


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What one variant is made from. weight_bits: what the target's integer arithmetic allows (7 where sums may saturate).

    network: None where the form has no torch network to train again (an ONNX start, a pruned network).
    """

    model: Stored[FloatModel]
    data: Stored[SteeringData]
    metric: Metric
    settings: CompressSection
    weight_bits: int
    network: Network | None = None


class Form(Protocol):
    """A network beside the base one. config: everything but the base and the data that decides the result, as JSON types."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> int: ...

    @property
    def tools(self) -> tuple[str, ...]: ...

    def config(self, network: Network) -> dict[str, Any]: ...

    def make(
        self, network: Network, base: Stored[FloatModel], data: Stored[SteeringData], work: Path, progress: Progress
    ) -> FloatModel:
        """Write the form as float ONNX into `work`. A form that helps nothing is returned with `rejected` set."""


class Scheme(Protocol):
    """One way to make a variant for one engine.

    method: of `compress.methods` that asks for it, None for plain conversions, which are always tried. needs_network: whether
    it trains; needs_data: whether it looks at examples. tools: distributions that decide the result.
    """

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def method(self) -> Method | None: ...

    @property
    def revision(self) -> int: ...

    @property
    def tools(self) -> tuple[str, ...]: ...

    @property
    def needs_network(self) -> bool: ...

    @property
    def needs_data(self) -> bool: ...

    def unfit(self, ground: Ground) -> str:
        """Why this model cannot or need not be compressed this way; "" where it can. Cheap."""

    def config(self, ground: Ground) -> dict[str, Any]:
        """Everything but model and data that decides the result, as JSON types."""

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Write the variant `name` into `work`. Raises StageError or NetworkError where the engine refuses the model."""


def variant_name(form: str, scheme: Scheme, weight_bits: int) -> str:
    """ "pruned50-openvino-int8"; integer weights of fewer bits than eight are part of the name, for it is another model."""
    bits = f"-{weight_bits}bit" if scheme.method == "quantize" and scheme.engine != "tensorrt" and weight_bits != 8 else ""
    return f"{'' if form == BASE else f'{form}-'}{scheme.engine}-{scheme.name}{bits}"
