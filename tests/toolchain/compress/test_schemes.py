"""Each scheme keeps what it promises on a small trained network: its answers, its integers, its bytes."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.toolchain.compress.collapses import CALIBRATION_ROWS, Collapse, conv, images, lay, named
from toolchain.benchmark.metrics import resolve_metrics
from toolchain.benchmark.run import outputs_of
from toolchain.compress.base import Ground, Network, Scheme, variant_name
from toolchain.compress.calibration import draw
from toolchain.compress.equalize import equalize
from toolchain.compress.neural import ONNXRUNTIME_NEURAL
from toolchain.compress.nncf import OPENVINO_INT8
from toolchain.compress.onnxruntime import ONNXRUNTIME_ENTROPY, ONNXRUNTIME_INT8, ONNXRUNTIME_PERCENTILE
from toolchain.compress.restore import ONNXRUNTIME_RESTORED
from toolchain.compress.schemes import LADDERS, SCHEMES, scheme
from toolchain.compress.weights import ONNXRUNTIME_WEIGHTS4, ONNXRUNTIME_WEIGHTS8
from toolchain.convert.onnx import _quiet
from toolchain.data.arrays import read_split
from toolchain.data.load import load_data
from toolchain.pipeline.build import Build, Settings
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.products import Variant
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Runner, Stored
from toolchain.recipe import load_recipe
from toolchain.targets import this_host

MakeGround = Callable[[Collapse], Ground]


@pytest.fixture(scope="module")
def ground_of(tmp_path_factory: pytest.TempPathFactory) -> MakeGround:
    """A row's float model, data and network, each row prepared once."""
    grounds: dict[str, Ground] = {}
    root = tmp_path_factory.mktemp("grounds")

    def make(row: Collapse) -> Ground:
        if row.name not in grounds:
            grounds[row.name] = _ground(row, root)
        return grounds[row.name]

    return make


def _ground(row: Collapse, root: Path) -> Ground:
    path = lay(row, root / row.name)
    recipe = load_recipe(path)
    runner = Runner(StageCache(root / "cache"), Silent(), row.name)
    build = Build(recipe, path.parent, Settings(), runner, this_host())
    splits = load_data(runner, recipe, path.parent)
    data = splits.part(splits.value.steering, splits.value.steering.digest)
    trained, base = build._float_model(data)  # the way there is the build's own; only its end is of interest here
    assert trained is not None
    assert build.source is not None
    metric = resolve_metrics(recipe, path.parent)[0]
    network = Network(recipe=recipe, folder=path.parent, source=build.source, trained=trained, metric=metric)
    return Ground(model=base, data=data, metric=metric, settings=recipe.compress, weight_bits=8, network=network)


SOUND = dataclasses.replace(named("large-bias"), name="large-bias", spoil=lambda network: network)
"""The row's network as it was trained; `collapse.py` lays it under the same name."""


def make(wanted: Scheme, ground: Ground, work: Path) -> Variant:
    work.mkdir()
    return wanted.make(ground, variant_name("base", wanted, ground.weight_bits), work, Silent())


def accuracy(variant: Variant, ground: Ground, work: Path) -> float:
    arrays, targets = read_split(ground.data.folder, ground.data.value.validation)
    return ground.metric.value(outputs_of(Stored(variant, work, ""), arrays)[0], targets)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    "wanted",
    [ONNXRUNTIME_INT8, ONNXRUNTIME_PERCENTILE, ONNXRUNTIME_RESTORED, OPENVINO_INT8, ONNXRUNTIME_WEIGHTS8, ONNXRUNTIME_WEIGHTS4],
    ids=lambda item: f"{item.engine}-{item.name}",
)
def test_a_scheme_keeps_a_sound_network_and_writes_the_same_bytes_again(
    wanted: Scheme, ground_of: MakeGround, tmp_path: Path
) -> None:
    ground = ground_of(SOUND)
    reference = ground.metric.value(
        np.load(ground.model.folder / ground.model.value.reference[0]),
        read_split(ground.data.folder, ground.data.value.validation)[1],
    )
    first, second = tmp_path / "first", tmp_path / "second"
    variant = make(wanted, ground, first)
    make(wanted, ground, second)
    assert accuracy(variant, ground, first) >= reference - 0.02
    assert sorted(path.name for path in first.iterdir()) == sorted(variant.files)
    assert [(first / name).read_bytes() for name in variant.files] == [(second / name).read_bytes() for name in variant.files]


def test_a_restored_model_keeps_a_tenth_of_its_layers_in_float(ground_of: MakeGround, tmp_path: Path) -> None:
    ground = ground_of(SOUND)
    make(ONNXRUNTIME_RESTORED, ground, tmp_path / "made")
    model = onnx.load(tmp_path / "made" / "model.onnx")
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert sum(node.input[1] not in rounded for node in layers) == 1  # of three
    assert len(layers) == 3


def test_openvino_weights_of_seven_bits_keep_below_64(ground_of: MakeGround, tmp_path: Path) -> None:
    """On a CPU that sums pairs of products in 16 bits, 255 * 64 * 2 is the most that fits."""
    import openvino

    ground = ground_of(SOUND)
    largest = {}
    for bits in (7, 8):
        variant = make(OPENVINO_INT8, _with_bits(ground, bits), tmp_path / str(bits))
        model = openvino.Core().read_model(tmp_path / str(bits) / variant.model_file)
        codes = [
            node.get_data()
            for node in model.get_ops()
            if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.i8
        ]
        assert codes
        largest[bits] = max(int(np.abs(code.astype(int)).max()) for code in codes)
    assert largest[7] <= 64 < largest[8]


def test_nncf_is_quiet_without_turning_down_handlers_of_others(ground_of: MakeGround, tmp_path: Path) -> None:
    from nncf.common.logging import nncf_logger

    handler = logging.NullHandler()
    nncf_logger.addHandler(handler)
    level = nncf_logger.level
    try:
        make(OPENVINO_INT8, ground_of(SOUND), tmp_path / "made")
        assert (nncf_logger.level, handler.level) == (level, logging.NOTSET)
    finally:
        nncf_logger.removeHandler(handler)


def _with_bits(ground: Ground, bits: int) -> Ground:
    import msgspec

    return msgspec.structs.replace(ground, weight_bits=bits)


def test_weight_only_shrinks_matrices_and_refuses_convolutions(ground_of: MakeGround, tmp_path: Path) -> None:
    ground = ground_of(SOUND)
    assert not ONNXRUNTIME_WEIGHTS4.unfit(ground)
    make(ONNXRUNTIME_WEIGHTS4, ground, tmp_path / "made")
    assert operators(tmp_path / "made" / "model.onnx")["MatMulNBits"] >= 2
    assert "matrix products hold" in ONNXRUNTIME_WEIGHTS4.unfit(ground_of(named("dark-frames")))


def test_balanced_rows_leave_out_dark_frames_and_take_every_class(ground_of: MakeGround) -> None:
    ground = ground_of(named("dark-frames"))
    even, balanced = draw(ground, "even")["input"], draw(ground, "balanced")["input"]
    assert not even.any()
    assert len(balanced) == 2 * CALIBRATION_ROWS
    assert np.ptp(balanced.reshape(len(balanced), -1), axis=1).min() > 0


def test_equalized_channels_change_no_answer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    row = named("exploding-channel")
    network = row.spoil(conv()).eval()
    rows = images().validation[0]
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    _export(network, rows[:2], source)
    assert equalize(source, target, lambda: iter([{"input": rows[:64]}])) == ()  # all of it went into weights
    before, after = (_run(path, rows) for path in (source, target))
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()
    assert source.read_bytes() != target.read_bytes()


def _export(network: torch.nn.Module, rows: np.ndarray, path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    with _quiet():
        program = torch.onnx.export(
            network, (torch.from_numpy(rows),), dynamo=True, dynamic_shapes=shapes, input_names=["input"], verbose=False
        )
        assert program is not None
        program.save(str(path), external_data=False)


def _run(path: Path, rows: np.ndarray) -> np.ndarray:
    import onnxruntime

    answer: np.ndarray = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": rows})[0]
    return answer


@pytest.mark.slow  # its search takes a second a tensor
def test_entropy_is_another_calibration_than_minmax(ground_of: MakeGround, tmp_path: Path) -> None:
    ground = ground_of(SOUND)
    for wanted in (ONNXRUNTIME_INT8, ONNXRUNTIME_ENTROPY):
        make(wanted, ground, tmp_path / wanted.name)
    assert (tmp_path / "int8" / "model.onnx").read_bytes() != (tmp_path / "int8-entropy" / "model.onnx").read_bytes()


@pytest.mark.slow
def test_neural_compressor_writes_integers_that_onnxruntime_runs(ground_of: MakeGround, tmp_path: Path) -> None:
    ground = ground_of(SOUND)
    variant = make(ONNXRUNTIME_NEURAL, ground, tmp_path / "made")
    reference = np.load(ground.model.folder / ground.model.value.reference[0])
    _, targets = read_split(ground.data.folder, ground.data.value.validation)
    assert accuracy(variant, ground, tmp_path / "made") >= ground.metric.value(reference, targets) - 0.03
    assert operators(tmp_path / "made" / "model.onnx")["QuantizeLinear"] >= 3
    assert "saturate" in ONNXRUNTIME_NEURAL.unfit(_with_bits(ground, 7))


def test_ladders_name_schemes_and_keep_to_ten_trials() -> None:
    assert len({(item.engine, item.name) for item in SCHEMES}) == len(SCHEMES)
    for engine, names in LADDERS.items():
        assert 1 <= len(names) <= 10
        assert names[0] == "int8"
        assert all(scheme(engine, name).precision == "int8" for name in names)


def test_seven_bits_are_part_of_the_name() -> None:
    assert variant_name("base", OPENVINO_INT8, 7) == "openvino-int8-7bit"
    assert variant_name("pruned50", ONNXRUNTIME_INT8, 8) == "pruned50-onnxruntime-int8"
    assert variant_name("base", ONNXRUNTIME_WEIGHTS8, 7) == "onnxruntime-int8-weights"
