"""Does every backend keep the protocol of `runtime.backends.base`, and compute what NumPy computes?

TensorRT runs twice: here on fakes of NVIDIA's libraries, which show our half of the work, and in earnest where there is a GPU.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runtime.backends.base import backend_names, get_backend
from runtime.backends.isolated import IsolatedModel, Isolation
from runtime.errors import EngineOptionError, EngineUnknownError, InferenceError, ModelLoadError
from tests.support import fake_tensorrt

NAMES = ("onnxruntime", "openvino", "reference", "tensorrt")
HERE = NAMES[:3]
FAKE = "tensorrt-on-fakes"
APART = "-apart"


@pytest.fixture(params=[*HERE, f"onnxruntime{APART}", FAKE, pytest.param("tensorrt", marks=pytest.mark.gpu)])
def name(request, monkeypatch):
    if request.param == FAKE:
        fake_tensorrt.install(monkeypatch)
    elif request.param == "tensorrt" and not (found := get_backend("tensorrt").probe()).ok:
        pytest.skip(found.reason)
    return request.param.removesuffix("-on-fakes").removesuffix(APART)


@pytest.fixture
def backend(name, request):
    return Apart(name) if APART in request.node.name else get_backend(name)


class Apart:
    """A backend whose models run in processes of their own: as LoadedModels they are like any other."""

    def __init__(self, name):
        self.name = name
        self.probe = get_backend(name).probe

    def load(self, model, options):
        return IsolatedModel(self.name, model, options, Isolation())


@pytest.fixture
def model(name, backend, model_files):
    loaded = backend.load(model_files[name], {})
    yield loaded
    loaded.close()


def expected(layers, rows):
    (w0, b0), (w1, b1) = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in layers]
    return np.maximum(rows @ w0 + b0, 0) @ w1 + b1


def rows_of(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


def test_this_suite_covers_every_registered_backend():
    assert backend_names() == NAMES


def test_unknown_backends_are_refused_naming_the_known_ones():
    with pytest.raises(EngineUnknownError, match="onnxruntime, openvino, reference, tensorrt"):
        get_backend("tensorflow")


def test_listing_and_probing_import_no_engine():
    script = (
        "import sys; from runtime.backends.base import backend_names, get_backend\n"
        "probed = {name: get_backend(name).probe() for name in backend_names()}\n"
        "assert all(probed[name].ok for name in ('onnxruntime', 'openvino', 'reference'))\n"
        "assert probed['tensorrt'].ok != bool(probed['tensorrt'].reason)\n"
        "assert not {'onnxruntime', 'openvino', 'torch', 'onnx', 'tensorrt'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_probe_gives_a_dotted_version(backend):
    availability = backend.probe()
    assert availability.ok
    assert availability.reason == ""
    assert len(availability.version.split(".")) >= 2


def test_specs_come_from_the_model(model):
    (given,), (result,) = model.inputs, model.outputs
    assert (given.name, given.datatype, given.shape) == ("input", "FP32", (-1, 6))
    assert (result.name, result.datatype, result.shape) == ("output", "FP32", (-1, 3))


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_values_equal_those_of_numpy(model, layers, batch):
    """float32 with 16 summands: a few units in the last place, so 1e-5 is ample, and bf16 (1e-3) would fail."""
    rows = rows_of(batch)
    result = model.infer({"input": rows})["output"]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected(layers, rows), rtol=1e-5, atol=1e-5)


def test_infer_leaves_inputs_alone_and_reads_read_only_ones(model):
    rows = rows_of(4)
    kept = rows.copy()
    rows.flags.writeable = False
    model.infer({"input": rows})
    np.testing.assert_array_equal(rows, kept)


def test_outputs_belong_to_the_caller(model):
    first = model.infer({"input": rows_of(2, seed=1)})["output"]
    kept = first.copy()
    model.infer({"input": rows_of(2, seed=2)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


def test_non_contiguous_inputs_give_the_same_values(model):
    rows = rows_of(8)
    strided = np.asfortranarray(np.repeat(rows, 2, axis=0))[::2]
    np.testing.assert_allclose(model.infer({"input": strided})["output"], model.infer({"input": rows})["output"], rtol=1e-6)


def test_nan_goes_through_and_stays_in_its_row(model):
    rows = rows_of(3)
    clean = model.infer({"input": rows})["output"]
    rows[1, 2] = np.nan
    result = model.infer({"input": rows})["output"]
    np.testing.assert_allclose(result[[0, 2]], clean[[0, 2]], rtol=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [
        {"input": np.zeros((2, 5), np.float32)},
        {"input": np.zeros(6, np.float32)},
        {"other": np.zeros((2, 6), np.float32)},
        {},
    ],
    ids=["width", "rank", "name", "none"],
)
def test_wrong_inputs_are_an_inference_error_and_leave_the_model_usable(model, layers, inputs):
    with pytest.raises(InferenceError):
        model.infer(inputs)
    rows = rows_of(1)
    np.testing.assert_allclose(model.infer({"input": rows})["output"], expected(layers, rows), rtol=1e-5, atol=1e-5)


def test_a_closed_model_refuses_and_closes_again(name, backend, model_files):
    model = backend.load(model_files[name], {})
    model.close()
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model.infer({"input": rows_of(1)})


@pytest.mark.parametrize("options", [{"treads": 1}, {"threads": 0}, {"threads": "many"}, {"precision": "int3"}])
def test_options_it_cannot_honour_are_refused(name, backend, model_files, options):
    with pytest.raises(EngineOptionError, match=name):
        backend.load(model_files[name], options)


def test_one_thread_can_be_asked_of_every_backend(name, backend, model_files, layers):
    model = backend.load(model_files[name], {"threads": 1})
    rows = rows_of(1)
    np.testing.assert_allclose(model.infer({"input": rows})["output"], expected(layers, rows), rtol=1e-5, atol=1e-5)
    model.close()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04broken"], ids=["empty", "text", "broken zip"])
def test_files_that_are_no_model_are_a_load_error(name, backend, model_files, tmp_path, content):
    path = tmp_path / model_files[name].name
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=path.name):
        backend.load(path, {})
    with pytest.raises(ModelLoadError, match=r"absent"):
        backend.load(tmp_path / f"absent{path.suffix}", {})


def test_two_models_run_at_once_in_two_threads(name, backend, model_files, layers):
    rows = [rows_of(5, seed) for seed in range(2)]
    models = [backend.load(model_files[name], {}) for _ in rows]

    def run(index):
        return [models[index].infer({"input": rows[index]})["output"] for _ in range(50)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    for index, outputs in enumerate(results):
        for output in outputs:
            np.testing.assert_allclose(output, expected(layers, rows[index]), rtol=1e-5, atol=1e-5)
    for model in models:
        model.close()
