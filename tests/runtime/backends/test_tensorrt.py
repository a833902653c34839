"""Does the TensorRT backend call NVIDIA's libraries as documented, keep engines honestly, and say why it cannot?

The libraries are fakes of ours (tests.support.fake_tensorrt, fake_cuda): what passes here is our half. The conformance suite runs
the same backend on the real ones, marked `gpu`.
"""

import logging
import re
import sysconfig
from ctypes import CDLL
from pathlib import Path

import numpy as np
import pytest

from runtime.backends import tensorrt_store
from runtime.backends.cuda import PROTOTYPES
from runtime.backends.tensorrt import TensorRtBackend, pieces
from runtime.errors import DiskFullError, EngineMissingError, EngineOptionError, InferenceError, ModelLoadError
from tests.support import fake_tensorrt
from tests.support.fake_cuda import OUT_OF_MEMORY, FakeDriver

ROWS = np.arange(12, dtype=np.float32).reshape(2, 6)
CUDA_HEADER = Path(sysconfig.get_path("purelib")) / "nvidia/cu13/include/cuda.h"


@pytest.fixture
def fake(monkeypatch):
    return fake_tensorrt.install(monkeypatch)


@pytest.fixture
def model(model_files, tmp_path):
    """The perceptron alone in an artifact's folder, as a device holds it."""
    folder = tmp_path / "models" / "a"
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    path.write_bytes(model_files["tensorrt"].read_bytes())
    return path


def load(model, **options):
    return TensorRtBackend().load(model, options)


def run(model, **options):
    loaded = load(model, **options)
    result = loaded.infer({"input": ROWS})["output"]
    loaded.close()
    return result


def engines(model) -> list[Path]:
    return sorted((model.parent.parent / "engines").glob("*.engine"))


@pytest.mark.parametrize(("version", "flags"), [("10.8.0.43", 2), ("10.13.3.9", 2), ("11.0.0.1", 0), ("11.4.1.2", 0)])
def test_networks_are_strongly_typed_by_flag_on_10_and_by_nature_on_11(monkeypatch, model, version, flags):
    fake = fake_tensorrt.install(monkeypatch, version)
    run(model)
    assert fake.seen["network flags"] == flags


def test_a_free_batch_is_bounded_and_tuned_for_one_row(fake, model):
    run(model)
    assert fake.seen["profile"] == {"input": ([1, 6], [1, 6], [64, 6])}
    run(model, max_batch=8, best_batch=4)
    assert fake.seen["profile"] == {"input": ([1, 6], [4, 6], [8, 6])}


def test_float32_stays_float32_unless_tf32_is_asked_for(fake, model):
    run(model)
    assert "TF32" not in fake.seen["flags"]
    run(model, tf32=True)
    assert "TF32" in fake.seen["flags"]


def test_options_reach_the_builder(fake, model):
    run(model, threads=3, effort=5, workspace_mb=16)
    assert (fake.seen["threads"], fake.seen["effort"], fake.seen["workspace"]) == (3, 5, 16 << 20)


def test_batches_outside_the_bounds_are_refused_by_the_option_s_name(fake, model):
    loaded = load(model, max_batch=4)
    for rows in (0, 5):
        with pytest.raises(InferenceError, match="max_batch"):
            loaded.infer({"input": np.zeros((rows, 6), np.float32)})
    with pytest.raises(InferenceError, match="float64"):
        loaded.infer({"input": np.zeros((1, 6))})
    loaded.close()
    with pytest.raises(EngineOptionError, match="best_batch"):
        load(model, max_batch=2, best_batch=4)


def test_an_engine_is_built_once_and_lies_outside_the_verified_artifact(fake, model):
    first = run(model)
    np.testing.assert_array_equal(run(model, threads=2), first)
    assert fake.builds == 1
    assert len(engines(model)) == 1
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_the_folder_of_engines_is_an_option(fake, model, tmp_path):
    run(model, engines=str(tmp_path / "state"))
    assert not engines(model)
    assert len(list((tmp_path / "state").glob("*.engine"))) == 1


def test_other_options_and_other_models_get_their_own_engine(fake, model):
    run(model)
    run(model, max_batch=2)
    assert (fake.builds, len(engines(model))) == (2, 2)
    model.write_bytes(model.read_bytes().replace(b"perceptron", b"perceptroN"))
    run(model)
    assert (fake.builds, len(engines(model))) == (3, 3)


@pytest.mark.parametrize(
    ("version", "driver", "difference"),
    [
        ("10.14.0.1", {}, "tensorrt 10.13.3.9, here it is 10.14.0.1"),
        ("10.13.3.9", {"capability": (9, 0)}, "compute_capability 8.7, here it is 9.0"),
        ("10.13.3.9", {"cuda": 13020}, "cuda 12.6, here it is 13.2"),
        ("10.13.3.9", {"name": b"Fake Thor"}, "gpu Fake Orin, here it is Fake Thor"),
    ],
    ids=["version", "compute capability", "driver", "GPU"],
)
def test_a_stale_engine_is_built_again_and_the_log_says_why(monkeypatch, model, caplog, version, driver, difference):
    fake_tensorrt.install(monkeypatch)
    expected = run(model)
    caplog.set_level(logging.INFO)
    other = fake_tensorrt.install(monkeypatch, version, FakeDriver(**driver))
    np.testing.assert_array_equal(run(model), expected)
    assert other.builds == 1
    assert difference in caplog.text
    assert len(engines(model)) == 1


def cut(raw: bytes) -> bytes:
    return raw[:-1]


def flip(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def empty(raw: bytes) -> bytes:
    return b""


def headless(raw: bytes) -> bytes:
    return raw.partition(b"\n")[2]


@pytest.mark.parametrize("damage", [cut, flip, empty, headless])
def test_a_damaged_engine_is_built_again_and_the_log_says_so(fake, model, caplog, damage):
    expected = run(model)
    (path,) = engines(model)
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(run(model), expected)
    assert fake.builds == 2
    assert "damaged" in caplog.text


def test_an_engine_that_tensorrt_itself_refuses_is_built_again(fake, model, caplog, monkeypatch):
    monkeypatch.setattr(fake.driver, "capability", (8, 6))
    run(model)
    monkeypatch.setattr(fake.driver, "capability", (8, 7))
    (path,) = engines(model)
    path.write_bytes(path.read_bytes().replace(b'"8.6"', b'"8.7"', 1))  # what our header promises, the plan does not keep
    run(model)
    assert fake.builds == 2
    assert "not compatible with this version" in caplog.text


def test_only_the_engines_last_used_stay(fake, model):
    for batch in range(2, tensorrt_store.KEPT + 4):
        run(model, max_batch=batch)
    assert len(engines(model)) == tensorrt_store.KEPT


@pytest.mark.parametrize("obstacle", ["a file in the way", "full disk"])
def test_an_engine_that_cannot_be_kept_serves_all_the_same(fake, model, caplog, monkeypatch, obstacle):
    if obstacle == "full disk":

        def full(path, data):
            raise DiskFullError(f"writing {path.name}: No space left on device")

        monkeypatch.setattr(tensorrt_store, "write_durably", full)
    else:
        (model.parent.parent / "engines").write_text("not a folder")
    assert run(model).shape == (2, 3)
    assert run(model).shape == (2, 3)
    assert fake.builds == 2
    assert "cannot be kept" in caplog.text


def test_timings_of_one_build_help_the_next_and_bad_ones_are_dropped(fake, model):
    run(model)
    assert fake.seen["timings"] == b""
    run(model, max_batch=2)
    assert fake.seen["timings"] == b"10.13.3.9"
    (cache,) = (model.parent.parent / "engines").glob("timing-10.13.3.9-sm87.cache")
    for content in (b"damaged", b"9.9.9"):
        cache.write_bytes(content)
        (path, *_) = engines(model)
        for path in engines(model):
            path.unlink()
        run(model)
        assert fake.seen["timings"] == b""


def write_model(path, nodes, shape=("batch", 6), opset=17, domains=()):
    from onnx import TensorProto, helper, save

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "test", tensors[:1], tensors[1:])
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_what_the_parser_refuses_is_named_by_node(fake, tmp_path):
    from onnx import helper

    node = helper.make_node("Fancy", ["input"], ["output"], name="stem", domain="my.ops")
    write_model(tmp_path / "model.onnx", [node], domains=["my.ops"])
    with pytest.raises(ModelLoadError, match=r"model\.onnx: node 'stem' \(Fancy\): Plugin not found"):
        load(tmp_path / "model.onnx")


def test_only_the_batch_may_be_free(fake, tmp_path):
    from onnx import helper

    write_model(tmp_path / "model.onnx", [helper.make_node("Relu", ["input"], ["output"])], shape=("batch", "width"))
    with pytest.raises(ModelLoadError, match=r"input 'input' has shape \[-1, -1\].*export it"):
        load(tmp_path / "model.onnx")


def test_a_fixed_shape_needs_no_profile(fake, tmp_path):
    from onnx import helper

    write_model(tmp_path / "model.onnx", [helper.make_node("Relu", ["input"], ["output"])], shape=(2, 6))
    np.testing.assert_array_equal(run(tmp_path / "model.onnx"), ROWS)
    assert fake.seen["profile"] == {}


def test_a_failed_build_gives_tensorrt_s_own_reason_and_frees_the_gpu(fake, model):
    fake.build_fails = True
    with pytest.raises(ModelLoadError, match="Could not find any implementation for node conv1"):
        load(model)
    assert fake.driver.contexts == 0


def test_a_failed_inference_gives_tensorrt_s_own_reason(fake, model):
    loaded = load(model)
    fake.execution_fails = True
    with pytest.raises(InferenceError, match="illegal memory access"):
        loaded.infer({"input": ROWS})
    fake.execution_fails = False
    fake.driver.fail["cuStreamSynchronize"] = OUT_OF_MEMORY
    with pytest.raises(InferenceError, match="cuStreamSynchronize failed: out of memory"):
        loaded.infer({"input": ROWS})


def test_too_little_memory_is_a_load_error_that_leaves_nothing_allocated(fake, model):
    fake.driver.fail["cuMemAlloc_v2"] = OUT_OF_MEMORY
    with pytest.raises(ModelLoadError, match="cuMemAlloc_v2 failed: out of memory"):
        load(model)
    assert (fake.driver.allocated, fake.driver.streams, fake.driver.contexts) == ({}, {}, 0)


def test_a_closed_model_leaves_nothing_on_the_gpu(fake, model):
    loaded = load(model)
    loaded.infer({"input": ROWS})
    assert fake.driver.allocated
    loaded.close()
    assert (fake.driver.allocated, fake.driver.streams, fake.driver.contexts) == ({}, {}, 0)


def test_probe_names_the_missing_library_and_stubs_are_none():
    """Here tensorrt-stubs is installed, so that `import tensorrt` finds a folder and no error."""
    found = TensorRtBackend().probe()
    if found.ok or "no NVIDIA" in found.reason:
        pytest.skip("TensorRT is installed here")
    assert "tensorrt is not installed" in found.reason
    assert 'pip install "edgewright[tensorrt]"' in found.reason
    assert "JetPack" in found.reason


@pytest.mark.parametrize(
    ("version", "driver", "reason"),
    [
        ("8.6.1", FakeDriver(), "tensorrt 8.6.1 is not served, 10 and 11 are"),
        ("12.0.0", FakeDriver(), "tensorrt 12.0.0 is not served, 10 and 11 are"),
        ("10.8.0", FakeDriver(gpus=0), "tensorrt 10.8.0 is installed, but the NVIDIA driver sees no GPU"),
    ],
    ids=["too old", "too new", "no GPU"],
)
def test_probe_and_load_say_what_is_missing(monkeypatch, model, version, driver, reason):
    fake_tensorrt.install(monkeypatch, version, driver)
    assert TensorRtBackend().probe().reason.startswith(reason)
    with pytest.raises(EngineMissingError, match=re.escape(reason)):
        load(model)


def test_probe_and_load_say_that_there_is_no_driver(fake, model, monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("runtime.backends.cuda.CDLL", absent)
    reason = TensorRtBackend().probe().reason
    assert "no NVIDIA driver (libcuda.so.1: cannot open" in reason
    with pytest.raises(EngineMissingError, match="no NVIDIA driver"):
        load(model)


@pytest.mark.parametrize(
    ("version", "driver", "expected"),
    [
        ("10.8.0", FakeDriver(), [(True, "10.8.0"), (True, "CUDA up to 12.6"), (True, "Fake Orin, compute capability 8.7")]),
        ("8.6.1", FakeDriver(gpus=0), [(False, "8.6.1 is not served"), (True, "loaded"), (False, "CUDA_VISIBLE_DEVICES")]),
        ("10.8.0", None, [(True, "10.8.0"), (False, "there is no NVIDIA driver"), (False, "without a driver")]),
    ],
    ids=["complete", "no GPU, old library", "no driver"],
)
def test_each_piece_is_judged_for_itself(monkeypatch, version, driver, expected):
    fake_tensorrt.install(monkeypatch, version, driver)
    if driver is None:
        monkeypatch.setattr("runtime.backends.cuda.LIBRARY", "libno-such-driver.so")
        monkeypatch.setattr("runtime.backends.cuda.CDLL", CDLL)
    found = pieces()
    assert [piece.name for piece in found] == ["library", "driver", "GPU"]
    for piece, (ok, words) in zip(found, expected, strict=True):
        assert piece.ok is ok
        assert words in piece.detail


def test_probe_gives_the_version_where_everything_is_there(fake):
    found = TensorRtBackend().probe()
    assert (found.ok, found.version, found.reason) == (True, "10.13.3.9", "")


@pytest.mark.skipif(not CUDA_HEADER.is_file(), reason="torch's CUDA packages are not installed, and cuda.h is theirs")
def test_prototypes_are_those_of_nvidia_s_header():
    """Argument for argument: pointers stay pointers, sizes and device addresses 64 bits wide."""
    header = CUDA_HEADER.read_text(encoding="utf-8")
    kinds = {"c_uint": "unsigned int", "c_int": "int", "c_ulong": "size_t", "c_void_p": "pointer", "c_char_p": "pointer"}
    for name, types in PROTOTYPES.items():
        plain = name.removesuffix("_v2")
        assert name == plain or re.search(rf"#\s*define {plain}\s+(__CUDA_API_PTSZ\()?{name}\b", header), name
        declared = re.search(rf"CUresult CUDAAPI {plain}\(([^)]*)\);", header)
        assert declared, name
        given = ["pointer" if kind.__name__.startswith("LP_") else kinds[kind.__name__] for kind in types]
        assert given == [_kind(argument) for argument in declared[1].split(",")], name


def _kind(argument: str) -> str:
    """One C parameter as the kind of value that crosses: handles are pointers, CUdeviceptr is 64 bits, enums are int."""
    text = " ".join(argument.split())
    if "*" in text or re.match(r"(CUcontext|CUstream)\b", text):
        return "pointer"
    if re.match(r"(size_t|CUdeviceptr)\b", text):
        return "size_t"
    return "unsigned int" if text.startswith("unsigned int") else "int"
