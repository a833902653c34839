"""Real ONNX files as training, fine-tuning and training anew leave them, for what brings them to a device."""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

LAYERS, WIDTH, CLASSES = 5, 1024, 10


def onnx_model(head: int, backbone: int) -> bytes:
    """21 MB: five layers that follow from the seed `backbone`, and a last one that follows from `head`."""
    shapes = [(backbone, WIDTH)] * LAYERS + [(head, CLASSES)]
    weights = [
        np.random.default_rng([seed, n]).normal(size=(WIDTH, columns)).astype(np.float32)
        for n, (seed, columns) in enumerate(shapes)
    ]
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(len(weights))]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info(f"x{len(nodes)}", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    checker.check_model(model)
    raw: bytes = model.SerializeToString(deterministic=True)
    return raw
