"""Does a model in a process of its own compute like any other, and take nobody along when it ends badly?"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.backends.isolated import IsolatedModel, Isolation
from runtime.backends.reference import write_model
from runtime.errors import (
    EngineCrashedError,
    EngineHungError,
    EngineMissingError,
    EngineOptionError,
    EngineUnknownError,
    InferenceError,
    ModelLoadError,
)
from tests.support import bad_engine

WAIT_S = 20.0
MIB = 1 << 20


@pytest.fixture
def bad(tmp_path, monkeypatch, layers):
    """Open the perceptron in the bad engine, with a fault to be set off."""
    monkeypatch.setenv("PYTHONPATH", bad_engine.register(tmp_path / "site"), prepend=os.pathsep)
    write_model(tmp_path / "model.npz", layers)
    opened = []

    def start(fault, **isolation):
        options = {"timeout_s": WAIT_S} | isolation
        opened.append(IsolatedModel(bad_engine.NAME, tmp_path / "model.npz", {"fault": fault}, Isolation(**options)))
        return opened[-1]

    yield start
    for model in opened:
        model.close()


@pytest.fixture
def apart(model_files):
    """Open a model of a real engine."""
    opened = []

    def start(engine, path=None, options=None, **isolation):
        opened.append(IsolatedModel(engine, path or model_files[engine], options or {}, Isolation(**isolation)))
        return opened[-1]

    yield start
    for model in opened:
        model.close()


def rows(count=2, scale=1.0, seed=0):
    return {"input": scale * np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)}


POISON = {"input": np.full((1, 6), 2 * bad_engine.POISON, np.float32)}


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def until(accepts, what):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if accepts():
            return
        time.sleep(0.01)
    raise AssertionError(f"not within {WAIT_S:g} s: {what}")


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_it_computes_what_the_engine_computes_here(engine, apart, model_files):
    here, there = get_backend(engine).load(model_files[engine], {}), apart(engine)
    assert (there.inputs, there.outputs) == (here.inputs, here.outputs)
    for count in (1, 1, 3, 1, 5000, 2):
        given = rows(count, seed=count)
        kept = given["input"].copy()
        found = there.infer(given)
        np.testing.assert_array_equal(found["output"], here.infer(given)["output"])
        np.testing.assert_array_equal(given["input"], kept)
    here.close()


def test_outputs_belong_to_the_caller(apart):
    model = apart("reference")
    first = model.infer(rows(seed=1))["output"]
    kept = first.copy()
    model.infer(rows(seed=2))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


def test_inputs_that_do_not_lie_in_one_piece(apart):
    model = apart("reference")
    wide = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    np.testing.assert_array_equal(
        model.infer({"input": wide[:, ::2]})["output"], model.infer({"input": wide[:, ::2].copy()})["output"]
    )


WRONG = (
    ({}, "missing"),
    ({"other": np.zeros((1, 6), np.float32)}, "missing"),
    ({"input": np.zeros((1, 6), np.float32), "other": np.zeros(1)}, "not input, other"),
    ({"input": np.zeros((1, 6), np.float64)}, "float32"),
    ({"input": np.zeros((1, 7), np.float32)}, "7"),
)


def test_wrong_tensors_are_refused_and_harm_nothing(apart):
    model = apart("onnxruntime")
    for inputs, says in WRONG:
        with pytest.raises(InferenceError, match=says):
            model.infer(inputs)
        assert model.infer(rows())["output"].shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("STRING", [np.array([b"a", b"", b"\xc3\xa9" * 1000], object), np.array([b"another"], object)]),
        ("BFLOAT16", [np.arange(count, dtype=np.uint16).view([("bf16", "<u2")]) for count in (3, 1)]),
    ],
)
def test_strings_and_bfloat16_come_through(apart, tmp_path, kind, tensors):
    from onnx import TensorProto, helper, save

    kind = getattr(TensorProto, kind)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    path = tmp_path / "same.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = apart("onnxruntime", path)
    for tensor in tensors:
        np.testing.assert_array_equal(model.infer({"x": tensor})["y"], tensor)


@pytest.mark.parametrize(
    ("engine", "options", "error"),
    [
        ("reference", {"threads": 7}, EngineOptionError),
        ("nonesuch", {}, EngineUnknownError),
        ("tensorrt", {}, EngineMissingError),
        ("onnxruntime", {}, ModelLoadError),
    ],
)
def test_what_opening_fails_with_comes_through(apart, tmp_path, model_files, engine, options, error):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    if engine == "tensorrt" and get_backend("tensorrt").probe().ok:
        pytest.skip("TensorRT is here")
    with pytest.raises(error):
        apart(engine, model_files["reference"] if engine == "reference" else tmp_path / "model.onnx", options)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("abort", "SIGABRT"),
        ("segfault", "SIGSEGV"),
        pytest.param("exit", "exit status 3", marks=pytest.mark.slow),
        pytest.param("kill", "SIGKILL", marks=pytest.mark.slow),
        ("leak", "more memory"),
        ("leak_in_the_engines_words", "more memory"),
    ],
)
def test_a_crash_is_one_error_and_then_the_end(bad, fault, says):
    model = bad(fault, memory_bytes=512 * MIB)
    assert model.infer(rows())["output"].shape == (2, 3)
    assert model.failure == ""
    with pytest.raises(EngineCrashedError, match=says):
        model.infer(POISON)
    assert model.failure.startswith("engine.crashed: ")
    assert not is_running(model.pid)
    with pytest.raises(EngineCrashedError, match=says):
        model.infer(rows())


@pytest.mark.parametrize("fault", ["hang", "hang_holding_the_interpreter"])
def test_a_hang_is_cut_off_in_its_time(bad, fault):
    model = bad(fault, timeout_s=0.3)
    began = time.monotonic()
    with pytest.raises(EngineHungError, match=r"0\.3 s"):
        model.infer(POISON)
    assert 0.3 <= time.monotonic() - began < 5
    assert not is_running(model.pid)
    assert model.failure.startswith("engine.hung: ")


def test_an_error_of_the_engine_is_no_crash(bad):
    model = bad("raise")
    with pytest.raises(InferenceError, match="as if the engine broke"):
        model.infer(POISON)
    assert model.infer(rows())["output"].shape == (2, 3)
    assert model.failure == ""


def test_a_crash_while_opening(bad):
    with pytest.raises(EngineCrashedError, match=r"while it opened model\.npz: .*SIGABRT"):
        bad("load")


def test_restarted_after_a_crash_until_it_is_closed(bad):
    model = bad("abort", restarts=True)
    first = model.pid
    for _ in range(2):
        with pytest.raises(EngineCrashedError):
            model.infer(POISON)
        assert model.failure == ""

        def answers():
            try:
                return model.infer(rows())
            except EngineCrashedError:
                return None

        until(answers, "a new process")
    assert model.pid != first
    model.close()
    assert not is_running(model.pid)


def test_closing_ends_the_process_whatever_it_does_and_twice_is_no_error(apart):
    model = apart("reference")
    pid = model.pid
    model.close()
    model.close()
    assert not is_running(pid)
    with pytest.raises(InferenceError):
        model.infer(rows())


def test_it_has_nothing_of_ours_but_its_arenas_and_pipes(apart, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nobody")
    with (tmp_path / "ours").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        model = apart("reference", memory_bytes=512 * MIB)
    place = Path(f"/proc/{model.pid}")
    open_files = [str(link.readlink()) for link in (place / "fd").iterdir()]
    assert not [name for name in open_files if "socket" in name or "ours" in name], open_files
    assert len({name for name in open_files if name.startswith("/memfd:edgewright")}) == 2, open_files
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) & ~(1 << 2) == 0
    assert int((place / "oom_score_adj").read_text()) >= 500
    limits = (place / "limits").read_text()
    assert f"Max data size             {512 * MIB}" in limits
    assert "Max core file size        0" in limits
    assert b"NOTIFY_SOCKET" not in (place / "environ").read_bytes()


@pytest.mark.parametrize("fault", ["", pytest.param("hang", marks=pytest.mark.slow), "hang_holding_the_interpreter"])
def test_it_dies_with_the_daemon(bad, tmp_path, fault):
    """The daemon's end: a process that opens a model, and is killed while it waits for it."""
    script = f"""
        import numpy as np, pathlib, threading, time
        from runtime.backends.isolated import Isolation, IsolatedModel
        opened = []
        opening = threading.Thread(target=lambda: opened.append(
            IsolatedModel("bad", pathlib.Path({str(tmp_path / "model.npz")!r}), {{"fault": {fault!r}}}, Isolation())))
        opening.start()
        opening.join()  # the thread that started it ends: that alone must not end it
        print(opened[0].pid, flush=True)
        opened[0].infer({{"input": np.full((1, 6), 1, np.float32)}})
        opened[0].infer({{"input": np.full((1, 6), 1000, np.float32)}})
        print("answered", flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as daemon:
        pid = int(daemon.stdout.readline())
        if not fault:
            assert daemon.stdout.readline() == b"answered\n"
        assert is_running(pid)
        daemon.send_signal(signal.SIGKILL)
    until(lambda: not is_running(pid), "the engine's process ends")


def test_a_stop_signal_to_the_group_is_not_for_it(apart):
    model = apart("reference")
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(model.pid, number)
    assert model.infer(rows())["output"].shape == (2, 3)


def test_many_models_leave_nothing_open(apart, model_files):
    def handles():
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    apart("reference").close()
    before = handles()
    for _ in range(3):
        model = apart("reference")
        model.infer(rows())
        model.close()
    assert handles() == before
