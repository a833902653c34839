"""What should be built? A TOML file, validated and frozen before any work starts.

Every mistake is named with its file, key and the nearest valid key; nothing is ignored.
"""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from runtime.contract.artifact import Consent, Name, OutputKind, Processing, ReleaseVersion, Step
from runtime.errors import ProcessingError
from runtime.processing.catalogue import check_processing, check_steps
from toolchain.errors import RecipeError

_INDEX = re.compile(r"\[\d+\]|\.\d+(?=\.|$)")
"""Of a table among several, as messages ("target[0].profile") and settings ("target.0.profile") write it."""
Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Method = Literal["quantize", "prune", "distill", "weight-only"]
Engine = Literal["onnxruntime", "openvino", "tensorrt"]
Objective = Literal["metric", "latency", "size"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a recipe: read-only, every key known."""


class ModelSection(Section, frozen=True):
    """network: "FILE:callable" beside the recipe, "package.module:callable", "torchvision:NAME" or "onnx:FILE".

    scores: what a classifier's outputs are; it is declared, because values alone cannot tell.
    """

    name: Name
    version: ReleaseVersion
    network: Annotated[str, Meta(pattern=r"^[^:]+:.+$")]
    options: dict[str, Any] = {}
    output_kind: OutputKind = "classification"
    scores: Literal["logits", "probabilities"] = "logits"
    licence: str = ""
    description: str = ""
    rollback_floor: ReleaseVersion = "0.0.0"


class DataSection(Section, frozen=True):
    """source: "FILE:callable", "package.module:callable", or built in as "imagefolder:PATH"; options are its keyword arguments."""

    source: Annotated[str, Meta(pattern=r"^[^:]+:.+$")]
    options: dict[str, Any] = {}


class TrainSection(Section, frozen=True):
    """patience: epochs without a better validation metric before training stops; 0 never stops early.

    loss: "" takes the usual one of the output kind (cross-entropy, mean squared error), or "FILE:callable".
    threads: two training threads on two busy cores were measured up to 4x slower than one, so one is the default.
    precision: what matrix products compute in; weights stay float32. accumulate: batches whose gradients make one step.
    compile: "auto" tries torch.compile on the first batches and keeps it where it pays. processes: data-parallel, by torchrun.
    ema: decay of the averaged weights that are kept instead, 0 for none. weights: a local file to start from (transfer
    learning); freeze: prefixes of parameters that stay as they came. augment: "FILE:callable" that returns a transform of
    a batch, such as one of torchvision.transforms.v2.
    """

    epochs: Positive
    seed: Annotated[int, Meta(ge=0)] = 0
    batch_size: Positive = 64
    learning_rate: Annotated[float, Meta(gt=0)] = 0.003
    weight_decay: NotNegative = 1e-4
    patience: Annotated[int, Meta(ge=0)] = 5
    threads: Positive = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loss: str = ""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: Positive = 1
    compile: Literal["off", "auto", "on"] = "off"
    processes: Positive = 1
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    weights: str = ""
    freeze: tuple[str, ...] = ()
    class_weights: Literal["none", "balanced"] = "none"
    augment: str = ""


class MetricSection(Section, frozen=True):
    """name: a built-in metric or "FILE:callable"; goal: needed for a callable; max_drop: absolute, against the float model.

    limit: what the metric must at least (goal "min": at most) be on validation data for anything to ship; the first metric's counts.
    """

    name: str = "accuracy"
    goal: Literal["max", "min"] | None = None
    max_drop: NotNegative = 0.01
    limit: float | None = None


class CompressSection(Section, frozen=True):
    """Which variants are tried beside the float model.

    calibration_rows: how many training examples set the ranges of quantized activations. prune_ratios: shares of channels
    to remove, one pruned network each; finetune_epochs: to recover them, 0 for as many as training had. teacher: a larger
    network, as `model.network` names one, that the recipe's own learns from; "" lets the trained model teach its pruned forms.
    trials: rungs of the fallback ladder an engine may try where int8 misses the metric's limit.
    schemes: further ones to try by name in any case, such as "openvino-int8-accuracy"; `toolchain doctor` lists them.
    """

    methods: tuple[Method, ...] = ("quantize",)
    calibration_rows: Positive = 256
    prune_ratios: tuple[Share, ...] = (0.5,)
    finetune_epochs: Annotated[int, Meta(ge=0)] = 0
    teacher: str = ""
    teacher_options: dict[str, Any] = {}
    trials: Annotated[int, Meta(ge=1, le=10)] = 10
    schemes: tuple[str, ...] = ()


class RangeSection(Section, frozen=True):
    """Where one key of the recipe may lie: `choices`, or `low` to `high` (integers where both are)."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[str | int | float | bool, ...] = ()


class TuneSection(Section, frozen=True):
    """A search over the recipe's own keys; each trial is a build on training and validation data.

    space: key as `--set` takes it -> its range. trials, seconds: the budget, whichever ends first. objectives: what is traded
    off; the targets' limits and the metric's are constraints. workers: processes on one study. storage: "" keeps the study
    in the stage cache; else an SQLAlchemy address that several machines may share.
    """

    space: Annotated[dict[str, RangeSection], Meta(min_length=1)]
    trials: Positive = 20
    seconds: Annotated[float, Meta(gt=0)] | None = None
    sampler: Literal["tpe", "random", "grid", "nsga2"] = "tpe"
    pruner: Literal["none", "median", "halving"] = "none"
    objectives: Annotated[tuple[Objective, ...], Meta(min_length=1)] = ("metric", "latency")
    workers: Positive = 1
    storage: str = ""
    seed: Annotated[int, Meta(ge=0)] = 0


class ProcessingSection(Section, frozen=True):
    """Steps of `runtime.processing` by name, with their options beside it: { name = "resize", height = 224, width = 224 }.

    pre: from a raw input to the network's tensor; the data source then returns raw inputs, and training, golden file and device
    prepare them with the same code. post: from the network's first output to an answer; left out, a softmax for logits.
    in_graph: the `scale` and `normalize` steps at the end of pre become the first layer of a torch network.
    """

    pre: tuple[dict[str, Any], ...] = ()
    post: tuple[dict[str, Any], ...] | None = None
    in_graph: bool = False


class TargetSection(Section, frozen=True):
    """One device profile to build for. max_latency_ms: limit on the 90th percentile of one inference; max_size_kb: on the model.

    engines: only these of the profile's, such as when one of them lacks an operator; empty: all.
    """

    profile: Name
    engines: tuple[Engine, ...] = ()
    max_latency_ms: Annotated[float, Meta(gt=0)] | None = None
    max_size_kb: Annotated[float, Meta(gt=0)] | None = None


class Recipe(Section, frozen=True):
    """A whole recipe. train is None when the network comes with its weights; the first metric decides the choice."""

    model: ModelSection
    data: DataSection
    train: TrainSection | None = None
    metrics: Annotated[tuple[MetricSection, ...], Meta(min_length=1)] = msgspec.field(default=(MetricSection(),), name="metric")
    compress: CompressSection = CompressSection()
    tune: TuneSection | None = None
    targets: Annotated[tuple[TargetSection, ...], Meta(min_length=1)] = msgspec.field(
        default=(TargetSection(profile="x86-64-cpu"),), name="target"
    )
    consent: Consent = Consent()
    processing: ProcessingSection = ProcessingSection()

    @property
    def sha256(self) -> str:
        """Digest of the meaning: the same whatever the layout, comments and order of keys in the file."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` settings over it. Raises RecipeError naming file, key and nearest valid key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: not readable as TOML: {error}") from error
    changed = {_apply_setting(document, setting) for setting in settings}
    return parse_recipe(document, str(path), changed)


def with_settings(recipe: Recipe, settings: Mapping[str, Any], source: str) -> Recipe:
    """The recipe with other values under some of its dotted keys. source: names the file in errors. Raises RecipeError."""
    document = {key: value for key, value in msgspec.json.decode(msgspec.json.encode(recipe)).items() if value is not None}
    changed = [_apply_setting(document, f"{key}={msgspec.json.encode(value).decode()}") for key, value in settings.items()]
    return parse_recipe(document, source, changed)


def parse_recipe(document: dict[str, Any], source: str, changed: Iterable[str] = ()) -> Recipe:
    """Validate a document. source: names the file in errors; changed: keys that came from --set instead."""
    origin = {key: f"--set {key}" for key in changed}
    for key in ("metric", "target"):
        if isinstance(document.get(key), dict):
            document = document | {key: [document[key]]}
    _require_known(Recipe, document, "", source, origin)
    try:
        recipe = msgspec.convert(document, Recipe)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        key = where.strip("`").lstrip(".")
        missing = message.removeprefix("Object missing required field `")
        if missing != message:
            key, message = f"{key}.{missing}".strip("`."), "this key is required"
        raise RecipeError(f"{_place(source, origin, key)}: {message}") from error
    _require_consistent(recipe, source)
    return recipe


def _require_consistent(recipe: Recipe, source: str) -> None:
    """What no single key can be blamed for."""
    profiles = [target.profile for target in recipe.targets]
    for profile in profiles:
        if profiles.count(profile) > 1:
            raise RecipeError(f"{source}: two targets have profile {profile!r}; each artifact's target must be unique")
    starts_from_onnx = recipe.model.network.startswith("onnx:")
    if starts_from_onnx and recipe.train is not None:
        raise RecipeError(f"{source}: [train] cannot train an ONNX file; remove [train] or name a torch network")
    if starts_from_onnx and (retrained := {"prune", "distill"} & set(recipe.compress.methods)):
        raise RecipeError(
            f"{source}: compress.methods: an ONNX file cannot be trained again; leave out {', '.join(sorted(retrained))}"
        )
    names = [metric.name for metric in recipe.metrics]
    if len(set(names)) != len(names):
        raise RecipeError(f"{source}: two [[metric]] tables have the same name")
    if recipe.train is not None and not recipe.train.loss and recipe.model.output_kind not in ("classification", "regression"):
        raise RecipeError(f"{source}: train.loss is required for output_kind {recipe.model.output_kind!r}")
    if starts_from_onnx and recipe.processing.in_graph:
        raise RecipeError(
            f"{source}: processing.in_graph: an ONNX file is taken as it is; leave it out, or put the steps into the file"
        )
    try:
        processing_of(recipe)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from error


def processing_of(recipe: Recipe) -> Processing:
    """The steps as a manifest names them: fractions as texts, lists joined by commas; without those the network does itself.

    Raises RecipeError naming the step.
    """
    return _processing(recipe)[0]


def in_graph_of(recipe: Recipe) -> tuple[Step, ...]:
    """The steps the network does itself, on what those of `processing_of` make. Raises RecipeError."""
    return _processing(recipe)[1]


def _processing(recipe: Recipe) -> tuple[Processing, tuple[Step, ...]]:
    section = recipe.processing
    post = section.post
    if post is None:
        is_logits = recipe.model.output_kind == "classification" and recipe.model.scores == "logits"
        post = ({"name": "softmax"},) if is_logits else ()
    processing = Processing(pre=_steps("processing.pre", section.pre), post=_steps("processing.post", post))
    try:
        check_processing(processing)
    except ProcessingError as error:
        raise RecipeError(f"processing: {error}") from error
    if not section.in_graph:
        return processing, ()
    before, inside = _split_off_arithmetic(processing.pre)
    if not inside:
        raise RecipeError("processing.in_graph: there is no scale or normalize at the end of processing.pre")
    return msgspec.structs.replace(processing, pre=before), inside


def _split_off_arithmetic(pre: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps before the network, and the arithmetic at their end: the channels may move first before it as well as after."""
    before = list(pre)
    inside: list[Step] = []
    moved: list[Step] = []
    while before and before[-1].name in ("scale", "normalize", "channels_first"):
        step = before.pop()
        if step.name == "channels_first":
            moved.insert(0, step)
        elif step.name == "normalize" and moved:
            inside.insert(0, msgspec.structs.replace(step, options={**step.options, "channels": "first"}))
        else:
            inside.insert(0, step)
    return (*before, *moved), tuple(inside)


def _steps(key: str, tables: Iterable[dict[str, Any]]) -> tuple[Step, ...]:
    steps = []
    for index, table in enumerate(tables):
        options = {name: _option(value) for name, value in table.items() if name != "name"}
        try:
            step = msgspec.convert({"name": table.get("name"), "options": options}, Step)
            check_steps([step])
        except (msgspec.ValidationError, ProcessingError) as error:
            reason = error if isinstance(error, ProcessingError) else 'expected { name = "STEP", OPTION = ... }'
            raise RecipeError(f"{key}[{index}]: {reason}") from error
        steps.append(step)
    return tuple(steps)


def _option(value: Any) -> Any:
    """A TOML value as a manifest holds it, without floats: repr is the shortest text that reads back as the same number."""
    if isinstance(value, list | tuple):
        return ",".join(str(_option(item)) for item in value)
    return repr(value) if isinstance(value, float) else value


def _require_known(kind: type[msgspec.Struct], document: Any, prefix: str, source: str, origin: Mapping[str, str]) -> None:
    """Walk the sections beside the document, so that an unknown key is named with the nearest one of its own section."""
    if not isinstance(document, dict):
        return  # msgspec names a section of the wrong type
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key, value in document.items():
        path = f"{prefix}{key}"
        if key not in fields:
            raise RecipeError(f"{_place(source, origin, path)}: unknown key; {_nearest(key, prefix, list(fields))}")
        section = _section_of(fields[key].type)
        if section is None:
            continue
        if _is_keyed(fields[key].type):
            for name, item in value.items() if isinstance(value, dict) else ():
                _require_known(section, item, f"{path}.{name}.", source, origin)
            continue
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            inner = f"{path}[{index}]." if isinstance(value, list) else f"{path}."
            _require_known(section, item, inner, source, origin)


def _section_of(kind: Any) -> type[msgspec.Struct] | None:
    """The section type inside an annotation such as `TrainSection | None` or `tuple[TargetSection, ...]`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) is None:
        return None
    return next((found for part in get_args(kind) if (found := _section_of(part)) is not None), None)


def _is_keyed(kind: Any) -> bool:
    """Whether an annotation is a table of sections by free names, such as `dict[str, RangeSection]`."""
    return get_origin(kind) is dict or any(_is_keyed(part) for part in get_args(kind))


def _nearest(key: str, prefix: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"known here: {', '.join(prefix + name for name in known)}"


def _place(source: str, origin: Mapping[str, str], key: str) -> str:
    plain = _INDEX.sub("", key)
    for addressed, place in origin.items():
        changed = _INDEX.sub("", addressed)
        if plain == changed or changed.startswith(f"{plain}.") or plain.startswith(f"{changed}."):
            return place
    return f"{source}: {key}" if key else source


def _apply_setting(document: dict[str, Any], setting: str) -> str:
    """Apply one `key=value` to the document in place; returns the key as it was addressed (indexes included)."""
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {setting}: expected key=value, such as train.epochs=5")
    value = _toml_value(text)
    parts = key.split(".")
    node: Any = document
    for part in parts[:-1]:
        node = _descend(node, part, key)
    if isinstance(node, list) and parts[-1].isdigit() and int(parts[-1]) < len(node):
        node[int(parts[-1])] = value
    elif isinstance(node, list) and all(isinstance(item, dict) for item in node):
        # `target.max_latency_ms=1` with several targets means all of them
        for item in node:
            item[parts[-1]] = value
    elif isinstance(node, dict):
        node[parts[-1]] = value
    else:
        raise RecipeError(f"--set {key}: {parts[-2]} is not a table")
    return key


def _descend(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        if part.isdigit() and int(part) < len(node):
            return node[int(part)]
        raise RecipeError(f"--set {key}: {part!r} is no index of {len(node)} tables")
    if not isinstance(node, dict):
        raise RecipeError(f"--set {key}: there is no table {part!r}")
    return node.setdefault(part, {})


def _toml_value(text: str) -> Any:
    """The value as TOML where it is TOML, else the bare text, so that shells need no inner quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
