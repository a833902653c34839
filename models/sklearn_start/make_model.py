"""Grows iris.onnx: a random forest of scikit-learn, turned into ONNX by skl2onnx (`pip install skl2onnx`).

`python models/sklearn_start/make_model.py` makes it again. XGBoost and LightGBM models come the same way, by onnxmltools.
"""

from pathlib import Path

import onnx
from iris import splits
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

OPSETS = {"": 17, "ai.onnx.ml": 3}


def main():
    values, labels = splits()["train"]
    forest = RandomForestClassifier(n_estimators=40, max_depth=4, random_state=0).fit(values, labels)
    converted = to_onnx(forest, values[:1], target_opset=OPSETS, options={"zipmap": False})
    del converted.graph.output[0]  # the label: the first output decides, and labels have no confidence
    onnx.save(converted, Path(__file__).parent / "iris.onnx")


if __name__ == "__main__":
    main()
