"""Does training run again for whatever decides the weights, and for nothing else?

Training is what costs; a build that repeats it for a comment is as wrong as one that shows old figures for new labels.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolchain.conftest import Project, ran
from toolchain.pipeline import stage as stage_module
from toolchain.pipeline.record import BuildResult

Change = Callable[[Project], tuple[str, ...] | None]
QUICK = ("train.epochs=2", "compress.methods=[]", 'target.engines=["onnxruntime"]', "train.loss=losses.py:loss")

SIZES = '''"""Sizes of the network."""

HIDDEN = 16


def hidden():
    return HIDDEN
'''
LOSSES = '''"""What training minimises."""

from torch import nn


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets.long())
'''


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """breast_cancer with a network, a helper module behind it, a loss and a data file of its own; built once."""
    import sklearn

    project = Project(tmp_path_factory.mktemp("built"), "breast_cancer")
    bundled = Path(sklearn.__file__).parent / "datasets" / "data" / "breast_cancer.csv"
    shutil.copyfile(bundled, project.folder / "data.csv")
    project.edit("breast_cancer.py", "path or bundled_file()", "path or Path(__file__).parent / 'data.csv'")
    (project.folder / "sizes.py").write_text(SIZES)
    (project.folder / "losses.py").write_text(LOSSES)
    (project.folder / "net.py").write_text(
        "from torch import nn\n\nfrom sizes import hidden\n\n\ndef network(**options):\n"
        "    return nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, hidden()), nn.ReLU(), nn.Linear(hidden(), 2))\n"
    )
    project.edit("recipe.toml", "breast_cancer.py:network", "net.py:network")
    project.build(*QUICK)
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    copy = Project(tmp_path, "breast_cancer")
    shutil.rmtree(copy.folder)
    shutil.copytree(built.folder, copy.folder)
    shutil.copytree(built.cache_root, copy.cache_root)
    copy.build(*QUICK)
    return copy


def option(*changes: str) -> Change:
    return lambda _: changes


def text(name: str, old: str, new: str) -> Change:
    return lambda project: project.edit(name, old, new)


def cell(split: str, column: int, value: Callable[[str], str]) -> Change:
    """Change one cell of a line that ends up in this split."""

    def change(project: Project) -> None:
        namespace: dict[str, object] = {"__file__": str(project.folder / "breast_cancer.py")}
        exec((project.folder / "breast_cancer.py").read_text(), namespace)
        inputs, _ = namespace["splits"]()[split]  # type: ignore[operator]
        path = project.folder / "data.csv"
        lines = path.read_text().splitlines()
        row = next(number for number, line in enumerate(lines) if number and abs(float(line.split(",")[0]) - inputs[0][0]) < 1e-4
                   and abs(float(line.split(",")[1]) - inputs[0][1]) < 1e-4)  # fmt: skip
        cells = lines[row].split(",")
        cells[column] = value(cells[column])
        lines[row] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")

    return change


def start_weights(project: Project) -> tuple[str, ...]:
    import torch

    torch.save({"1.bias": torch.ones(16)}, project.folder / "start.pt")
    return ("train.weights=start.pt",)


def augmentation(project: Project) -> tuple[str, ...]:
    (project.folder / "noise.py").write_text("def noise():\n    return lambda batch: batch * 1.01\n")
    return ("train.augment=noise.py:noise",)


TRAINS: list[tuple[str, Change]] = [
    ("the seed", option("train.seed=4")),
    ("the epochs", option("train.epochs=3")),
    ("the rate", option("train.learning_rate=0.01")),
    ("the batch size", option("train.batch_size=16")),
    ("accumulated gradients", option("train.accumulate=2")),
    ("averaged weights", option("train.ema=0.5")),
    ("mixed precision", option("train.precision=bfloat16")),
    ("weights to start from", start_weights),
    ("an augmentation", augmentation),
    ("the network's code", text("net.py", "nn.ReLU()", "nn.Tanh()")),
    ("a helper module's code", text("sizes.py", "return HIDDEN", "return HIDDEN + 1")),
    ("a constant in a helper module", text("sizes.py", "HIDDEN = 16", "HIDDEN = 17")),
    ("the loss's code", text("losses.py", "targets.long())", "targets.long()) * 2")),
    ("the metric that picks the epoch", option("metric.name=f1_macro")),
    ("a training value", cell("train", 5, lambda value: str(float(value) * 2))),
    ("a validation value", cell("validation", 5, lambda value: str(float(value) * 2))),
]
SPARED: list[tuple[str, Change]] = [
    ("a comment in the network's module", text("net.py", "def network", "# why\ndef network")),
    ("a comment in a helper module", text("sizes.py", "HIDDEN = 16", "HIDDEN = 16  # enough")),
    ("blank lines in the loss's module", text("losses.py", "def loss", "\n\ndef loss")),
    ("a comment in the data's module", text("breast_cancer.py", "TEST, VALIDATION", "# shares\nTEST, VALIDATION")),
    ("a comment in the recipe", text("recipe.toml", "[model]", "# why\n[model]")),
    ("the description", option("model.description=another")),
    ("the licence", option("model.licence=MIT")),
    ("the version", option("model.version=1.0.1")),
    ("the metric's limit", option("metric.max_drop=0.5")),
    ("the latency limit", option("target.max_latency_ms=3.5")),
    ("the compression", option("compress.calibration_rows=100")),
    ("another target", option("target.profile=intel-cpu-vnni")),
    ("a test value", cell("test", 5, lambda value: str(float(value) * 2))),
]


def trained(result: BuildResult) -> bool:
    return "train" in ran(result)


@pytest.mark.parametrize("change", [row[1] for row in TRAINS], ids=[row[0] for row in TRAINS])
def test_what_decides_the_weights_trains_again(project: Project, change: Change) -> None:
    changes = change(project) or ()
    result = project.build(*QUICK, *changes)
    assert trained(result)
    assert next(stage.why for stage in result.stages if stage.name == "train")
    assert not project.build(*QUICK, *changes).ran


@pytest.mark.parametrize("change", [row[1] for row in SPARED], ids=[row[0] for row in SPARED])
def test_what_does_not_is_spared_the_training(project: Project, change: Change) -> None:
    assert not trained(project.build(*QUICK, *(change(project) or ())))


def test_debug_output_place_and_tracking_change_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TRACKING", f"sqlite:///{tmp_path}/mlflow.db")
    project.out = tmp_path / "elsewhere"
    assert ran(project.build(*QUICK)) == set()


def test_another_torch_trains_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stage_module.tool_version
    monkeypatch.setattr(stage_module, "tool_version", lambda tool: "99.0" if tool == "torch" else real(tool))
    assert trained(project.build(*QUICK))
