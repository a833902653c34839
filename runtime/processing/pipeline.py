"""How do a manifest's steps turn a raw input into a tensor, and a network's outputs into an answer?

Pre-processing steps take one example at a time, so that an example's tensor never depends on its neighbours; `post` takes
the whole batch. The same code prepares training data, tests a device and decodes what it says.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import Manifest, Step
from runtime.errors import ProcessingError, RequestError
from runtime.processing import arrays, decode, images, scores, sound
from runtime.processing.catalogue import STEPS, options_of

Floats = NDArray[np.float64]
Tensors = Mapping[str, np.ndarray]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "resize": images.resize, "center_crop": images.center_crop, "grayscale": images.grayscale,
    "channels_first": images.channels_first, "to_float": arrays.to_float, "scale": arrays.scale, "normalize": arrays.normalize,
    "add_channel": arrays.add_channel, "flatten": arrays.flatten, "transpose": arrays.transpose, "fit_length": sound.fit_length, "stft": sound.stft,
    "mel": sound.mel, "log": sound.log, "dct": sound.dct, "softmax": scores.softmax, "sigmoid": scores.sigmoid,
    "argmax": decode.argmax, "top_k": decode.top_k, "nms": decode.nms,
}  # fmt: skip


class Preparation:
    """The `pre` steps of one manifest, read once and ready to run."""

    def __init__(self, steps: Sequence[Step]) -> None:
        """Raises ProcessingError for a step or option that is not known here."""
        self._steps = [(FUNCTIONS[step.name], options_of(step)) for step in steps]

    def one(self, example: np.ndarray) -> np.ndarray:
        """One raw example through all steps; the argument is left unmodified. Raises RequestError for one that does not fit."""
        value = np.asarray(example)
        for function, options in self._steps:
            value = function(value, **options)
        return value


def prepare(manifest: Manifest, examples: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The input tensor of raw examples, by its name: the `pre` steps applied to each, in the manifest's datatype.

    examples: one array each, such as uint8[h, w, 3] of any size or samples [n]. Raises RequestError naming the example that
    does not fit, ProcessingError as `check_manifest` does.
    """
    if len(manifest.inputs) != 1:
        raise ProcessingError(f"raw inputs are for models with one input, {manifest.model} has {len(manifest.inputs)}")
    if not len(examples):
        raise RequestError("no raw input: give at least one example")
    preparation = Preparation(manifest.processing.pre)
    spec = manifest.inputs[0]
    prepared: list[np.ndarray] = []
    for index, example in enumerate(examples):
        try:
            value = preparation.one(example)
        except RequestError as error:
            raise RequestError(f"raw input {index}: {error}") from error
        if prepared and value.shape != prepared[0].shape:
            raise RequestError(f"raw input {index} becomes {list(value.shape)}, the first {list(prepared[0].shape)}")
        prepared.append(value)
    return {spec.name: np.stack(prepared).astype(NUMPY_TYPES[spec.datatype], copy=False)}


def decoded(manifest: Manifest, outputs: Tensors) -> dict[str, np.ndarray]:
    """What the outputs say, by the `post` steps: a decoding step's answer, or all outputs with the scores in place of the first.

    outputs: as the network gave them, left unmodified. Raises ProcessingError, or RequestError for shapes no step can take.
    """
    post = manifest.processing.post
    last = post[-1] if post and STEPS[post[-1].name].place == "decode" else None
    if last is None:
        first = manifest.outputs[0].name
        return {**outputs, first: score(post, outputs[first])} if post else dict(outputs)
    options: dict[str, Any] = options_of(last)
    boxes, name = options.pop("boxes", ""), options.pop("scores", manifest.outputs[0].name)
    labels = next(spec.labels for spec in manifest.outputs if spec.name == name)
    values = [np.asarray(outputs[boxes], np.float64)] if boxes else []
    answer: dict[str, np.ndarray] = FUNCTIONS[last.name](*values, score(post, outputs[name]), labels, **options)
    return answer


def score(post: Sequence[Step], values: np.ndarray) -> Floats:
    """The values after the steps of `post` that keep scores scores; a decoding step at its end is left out."""
    return apply_steps([step for step in post if STEPS[step.name].place == "scores"] if post else post, values)


def apply_steps(steps: Sequence[Step], values: np.ndarray) -> Floats:
    """The values after all score steps, as float64; the argument is left unmodified. Raises ProcessingError."""
    result = np.asarray(values, dtype=np.float64)
    for step in steps:
        options = options_of(step)
        if STEPS[step.name].place != "scores":
            raise ProcessingError(f"processing step {step.name!r} does not turn scores into scores")
        result = FUNCTIONS[step.name](result, **options)
    return result
