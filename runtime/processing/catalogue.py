"""Which processing steps are there, which options has each, and do a manifest's steps make sense together?

Data alone, without NumPy, so that a recipe is checked before anything heavy is loaded. A step or an option this version does
not know is refused when the artifact is opened, never skipped. docs/runtime/processing.md shows this table.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from runtime.contract.artifact import Manifest, Processing, Step
from runtime.errors import ProcessingError
from runtime.processing.options import Option, Value, read_options

REVISION = 1
"""Of what the steps compute: higher when one gives other numbers, so that the toolchain prepares its data anew."""

Place = Literal["pre", "scores", "decode"]
"""pre: raw input -> tensor; scores: values -> values; decode: values -> an answer, last in `post`."""

_SIDE = 16_384.0
_SAMPLES = float(1 << 26)
_WINDOW = 16_384.0


class Definition(msgspec.Struct, frozen=True):
    """One step. check: says what is wrong with options that each are fine, or nothing."""

    name: str
    place: Place
    does: str
    options: tuple[Option, ...] = ()
    check: Callable[[Mapping[str, Value]], str] | None = None


def _check_mel(values: Mapping[str, Value]) -> str:
    low, high, rate = (float(str(values[name])) for name in ("low_hz", "high_hz", "rate"))
    high = high or rate / 2
    return "" if low < high <= rate / 2 else "low_hz must lie below high_hz, and that at most at half the rate"


def _check_stft(values: Mapping[str, Value]) -> str:
    window, fft = (int(str(values[name])) for name in ("window_size", "fft_size"))
    return "" if fft == 0 or fft >= window else "fft_size must be at least window_size"


_HEIGHT = Option("height", "whole", "rows of the result", low=1, high=_SIDE)
_WIDTH = Option("width", "whole", "columns of the result", low=1, high=_SIDE)

_ALL = (
    Definition("resize", "pre", "image [h, w, c] scaled to height x width; whole numbers stay whole, rounded", (
        _HEIGHT,
        _WIDTH,
        Option("fit", "choice", "stretch both sides, or cover: scale alike and cut about the centre", "stretch", choices=("stretch", "cover")),
        Option("method", "choice", "interpolation, with half-pixel centres", "bilinear", choices=("bilinear", "nearest")),
        Option("antialias", "flag", "bilinear: widen the filter when shrinking", default=True),
    )),
    Definition("center_crop", "pre", "the middle height x width of an image [h, w, c]", (_HEIGHT, _WIDTH)),
    Definition("grayscale", "pre", "luma of an image [h, w, 3] as [h, w, 1]"),
    Definition("to_float", "pre", "unsigned integers to 0..1, signed ones to -1..1, as float32; floats stay"),
    Definition("scale", "pre", "x * factor + offset as float32", (
        Option("factor", "decimal", "multiplied first", "1"),
        Option("offset", "decimal", "then added", "0"),
    )),
    Definition("normalize", "pre", "(x - mean) / std as float32, one number or one a channel", (
        Option("mean", "decimals", "subtracted"),
        Option("std", "decimals", "divided by", low=1e-12),
        Option("channels", "choice", "which axis of the image or array holds the channels", "last", choices=("last", "first")),
    )),
    Definition("channels_first", "pre", "image [h, w, c] as [c, h, w]"),
    Definition("add_channel", "pre", "a leading axis of length 1: [a, b] as [1, a, b]"),
    Definition("flatten", "pre", "any array as [n]"),
    Definition("transpose", "pre", "the two axes of a table exchanged: [a, b] as [b, a]"),
    Definition("fit_length", "pre", "sound [n] cut, or filled up with zeros, to so many samples", (
        Option("length", "whole", "samples of the result", low=1, high=_SAMPLES),
    )),
    Definition("stft", "pre", "sound [n] as a spectrogram [frames, fft_size / 2 + 1], float64", (
        Option("window_size", "whole", "samples of a frame", low=2, high=_WINDOW),
        Option("hop", "whole", "samples from one frame to the next", low=1, high=_WINDOW),
        Option("fft_size", "whole", "points of the transform, the frame filled up with zeros; 0: window_size", 0, low=0, high=_WINDOW),
        Option("window", "choice", "weights of a frame, periodic", "hann", choices=("hann", "hamming", "rectangular")),
        Option("output", "choice", "magnitude or its square", "magnitude", choices=("magnitude", "power")),
        Option("pad", "choice", "half a frame put before and behind, so that frame i is centred on sample i * hop", "none",
               choices=("none", "reflect", "zero")),
    ), _check_stft),
    Definition("mel", "pre", "spectrogram [frames, bins] in mel bands [frames, bands], float64", (
        Option("rate", "whole", "samples a second", low=1, high=1_000_000),
        Option("bands", "whole", "triangular filters", low=1, high=512),
        Option("low_hz", "decimal", "where the first filter begins", "0", low=0),
        Option("high_hz", "decimal", "where the last filter ends; 0: half the rate", "0", low=0),
        Option("scale", "choice", "which mel scale spaces the filters evenly", "htk", choices=("htk", "slaney")),
        Option("triangles", "choice", "straight over hertz (librosa, torchaudio) or over mel (TensorFlow)", "hertz",
               choices=("hertz", "mel")),
        Option("norm", "choice", "none: height 1; area: 2 / width in hertz", "none", choices=("none", "area")),
    ), _check_mel),
    Definition("log", "pre", "logarithm, float64", (
        Option("floor", "decimal", "keeps it finite", "0.000001", low=1e-30),
        Option("floor_by", "choice", "the floor is added, or what lies below is raised to it", "adding", choices=("adding", "raising")),
        Option("unit", "choice", "natural logarithm, or 10 log10", "natural", choices=("natural", "decibel")),
    )),
    Definition("dct", "pre", "DCT-II over the last axis, its first coefficients, float64", (
        Option("coefficients", "whole", "how many are kept", low=1, high=512),
        Option("norm", "choice", "ortho; htk: all by sqrt(2 / n); none: all by 2", "ortho", choices=("ortho", "htk", "none")),
    )),
    Definition("softmax", "scores", "probabilities over the last axis"),
    Definition("sigmoid", "scores", "1 / (1 + exp(-x))"),
    Definition("argmax", "decode", "the best class of each row: class, score, label"),
    Definition("top_k", "decode", "the best classes of each row, best first: class, score, label", (
        Option("k", "whole", "how many at most", 5, low=1, high=1000),
        Option("threshold", "decimal", "a lower score is no answer: class -1, score NaN, label empty", "-1e30"),
    )),
    Definition("nms", "decode", "detections after non-maximum suppression within each class: box, class, score, label", (
        Option("boxes", "text", "the output with boxes [n, m, 4] as x1, y1, x2, y2", "boxes"),
        Option("scores", "text", "the output with scores [n, m, classes]", "scores"),
        Option("threshold", "decimal", "a lower score is no detection", "0.05"),
        Option("overlap", "decimal", "a box over a better one by more than this intersection over union goes", "0.5", low=0, high=1),
        Option("limit", "whole", "detections a row; where fewer, class -1, score NaN, box NaN", 100, low=1, high=10_000),
    )),
)  # fmt: skip

STEPS: dict[str, Definition] = {definition.name: definition for definition in _ALL}


def check_manifest(manifest: Manifest) -> None:
    """Raise ProcessingError unless this version can do all the manifest's processing asks for."""
    check_processing(manifest.processing)
    if manifest.processing.pre and len(manifest.inputs) != 1:
        raise ProcessingError(f"pre-processing is for models with one input, {manifest.model} has {len(manifest.inputs)}")
    outputs = {spec.name for spec in manifest.outputs}
    for step in manifest.processing.post:
        if step.name == "nms":
            values = options_of(step)
            for name in (values["boxes"], values["scores"]):
                if name not in outputs:
                    raise ProcessingError(
                        f"processing step 'nms' needs the output {name!r}; the model has {', '.join(sorted(outputs))}"
                    )


def check_processing(processing: Processing) -> None:
    """Raise ProcessingError unless every step and option is known, and each stands where it belongs."""
    check_steps((*processing.pre, *processing.post))
    for where, steps, places in (("pre", processing.pre, ("pre",)), ("post", processing.post, ("scores", "decode"))):
        for step in steps:
            if STEPS[step.name].place not in places:
                fitting = ", ".join(sorted(name for name, one in STEPS.items() if one.place in places))
                raise ProcessingError(f"processing step {step.name!r} does not belong into {where!r}; there are {fitting}")
    for step in processing.post[:-1]:
        if STEPS[step.name].place == "decode":
            raise ProcessingError(f"processing step {step.name!r} must be the last one of 'post'")


def check_steps(steps: Sequence[Step]) -> None:
    """Raise ProcessingError unless every step and option is known here."""
    for step in steps:
        options_of(step)


def options_of(step: Step) -> dict[str, Value]:
    """A step's options, defaults filled in. Raises ProcessingError."""
    definition = STEPS.get(step.name)
    if definition is None:
        raise ProcessingError(f"unknown processing step {step.name!r}; known here: {', '.join(sorted(STEPS))}")
    values = read_options(step.name, definition.options, step.options)
    wrong = definition.check(values) if definition.check is not None else ""
    if wrong:
        raise ProcessingError(f"processing step {step.name!r}: {wrong}")
    return values
