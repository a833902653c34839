"""Makes wine.onnx: a logistic regression fitted by scikit-learn, written out as an ONNX graph of five nodes.

It stands for the file somebody hands over: `python models/onnx_start/make_model.py` makes it again, byte for byte.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from wine import splits

OPSET = 17
IR_VERSION = 8


def main():
    values, labels = splits()["train"]
    scaler = StandardScaler().fit(values)
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(values), labels)
    constants = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "weights": model.coef_.T,
        "bias": model.intercept_,
    }
    nodes = [
        helper.make_node("Sub", ["analysis", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standard"]),
        helper.make_node("MatMul", ["standard", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "wine",
        [helper.make_tensor_value_info("analysis", TensorProto.FLOAT, ["batch", values.shape[1]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(model.classes_)])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    written = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, Path(__file__).parent / "wine.onnx")


if __name__ == "__main__":
    main()
