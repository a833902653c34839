"""One real daemon with a model of every datatype, for clients that know nothing of it."""

import numpy as np
import pytest

from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import TensorSpec
from tests.support.artifacts import FEATURES, OUTPUTS, write_artifact
from tests.support.daemon import DaemonProcess
from tests.support.devices import active_slot, write_onnx_artifact

LABELS = ("low", "middle", "high")


def write_models(state_dir):
    """echo-*: what comes in goes out; arithmetic: two inputs and two outputs; tiny: three classes, in no engine at all."""
    from onnx import helper

    for datatype in NUMPY_TYPES:
        name = f"echo-{datatype.lower()}"
        given, result = (TensorSpec(name=port, datatype=datatype, shape=(-1, -1)) for port in ("IN", "OUT"))
        echo = helper.make_node("Identity", ["IN"], ["OUT"])
        write_onnx_artifact(active_slot(state_dir, name), name, [given], [result], [echo])
    ports = [TensorSpec(name=name, datatype="INT32", shape=(1, 16)) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    write_onnx_artifact(active_slot(state_dir, "arithmetic"), "arithmetic", ports[:2], ports[2:], nodes)
    labelled = (TensorSpec(name="output", datatype="FP32", shape=OUTPUTS[0].shape, labels=LABELS),)
    write_artifact(active_slot(state_dir, "tiny"), outputs=labelled)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    state_dir = tmp_path_factory.mktemp("device") / "state"
    write_models(state_dir)
    process = DaemonProcess(state_dir, **{"serving.model_control": "true", "limits.body_bytes": 1 << 20}).start()
    try:
        process.wait_until(lambda: process.infer(np.zeros((1, FEATURES), np.float32)).size, "it serves")
        yield process
        assert process.stop() == 0, process.log()
    finally:
        process.kill()
