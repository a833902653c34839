"""What tests of batch runs share: an artifact whose right answers are known, and one that takes pictures."""

from pathlib import Path

import numpy as np
import pytest

from runtime.backends.reference import write_model
from runtime.batch.run import BatchOptions, run_batch
from runtime.contract.artifact import FileEntry, Processing, Step, TensorSpec
from runtime.contract.canonical import sha256_hex
from tests.support.artifacts import FEATURES, write_artifact

SIDE = 2
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def artifact(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("artifact") / "tiny"
    write_artifact(directory)
    return directory


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """An artifact that says which of red, green and blue a picture holds most of."""
    directory = tmp_path_factory.mktemp("artifact") / "colours"
    weights = np.zeros((SIDE, SIDE, 3, 3), np.float32)
    weights[..., range(3), range(3)] = 1
    write_artifact(directory)
    for name in ("manifest.json", "golden.npz", "reference.bin", "card.md"):
        (directory / name).unlink()
    write_model(directory / "model.npz", [(weights.reshape(-1, 3), np.zeros(3, np.float32))])
    model = (directory / "model.npz").read_bytes()
    small = directory.with_name("small")
    write_artifact(
        small,
        inputs=(TensorSpec(name="input", datatype="FP32", shape=(-1, SIDE * SIDE * 3)),),
        outputs=(TensorSpec(name="output", datatype="FP32", shape=(-1, 3), labels=COLOURS),),
        processing=Processing(
            pre=(
                Step(name="resize", options={"height": SIDE, "width": SIDE}),
                Step(name="to_float"),
                Step(name="flatten"),
            ),
            post=(Step(name="softmax"), Step(name="argmax")),
        ),
        files=(FileEntry(name="model.npz", sha256=sha256_hex(model), size_bytes=len(model)),),
    )
    (small / "model.npz").write_bytes(model)
    return small


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(size=(50, FEATURES)).astype(np.float32)


@pytest.fixture
def batch(artifact, tmp_path):
    """Run the tiny artifact over a source in tmp_path. Returns the summary."""

    def run(source, out, directory=artifact, **options):
        return run_batch(directory, tmp_path / source, tmp_path / out, BatchOptions(**{"rows_per_batch": 8, **options}))

    return run
