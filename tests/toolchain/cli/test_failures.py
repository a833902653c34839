"""Whatever goes wrong, does the command end non-zero with one line that says what, where and what to do, and leave nothing half-done?

One row a failure; each is provoked for real, through the command, on a copy of a shipped model.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.toolchain.conftest import Project, Run

Provoke = Callable[[Project], tuple[str, ...] | None]

NETWORK = """
import torch
from torch import nn

from breast_cancer import splits


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(30, 2)

    def forward(self, x):
        {body}


def network():
    return Network()
"""


def edit(name: str, old: str, new: str) -> Provoke:
    return lambda project: project.edit(name, old, new)


def setting(*changes: str) -> Provoke:
    return lambda _: tuple(part for change in changes for part in ("--set", change))


def flag(*flags: str) -> Provoke:
    return lambda _: flags


def overwritten(name: str, content: bytes) -> Provoke:
    def provoke(project: Project) -> None:
        (project.folder / name).write_bytes(content)

    return provoke


def own_network(body: str) -> Provoke:
    def provoke(project: Project) -> tuple[str, ...]:
        (project.folder / "own.py").write_text(NETWORK.format(body=body))
        return ("--set", "model.network=own.py:network", "--set", "model.options={}", "--set", "train.epochs=1")

    return provoke


def returned(line: str) -> Provoke:
    """The wine source with one more line before it returns; `split` is its dict of (values, labels)."""
    return edit("wine.py", '    return split | {"classes"', f'    {line}\n    return split | {{"classes"')


def corrupt_image(project: Project) -> tuple[str, ...]:
    from PIL import Image

    for split in ("train", "validation", "test"):
        for label in ("dark", "light"):
            folder = project.folder / "images" / split / label
            folder.mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (8, 8), (index, 0, 0) if label == "dark" else (255, index, 0)).save(folder / f"{index}.png")
    (project.folder / "images" / "train" / "dark" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return ("--set", "data.source=imagefolder:images", "--set", "data.options={size = 8}")


def foreign_weights(project: Project) -> tuple[str, ...]:
    import torch

    torch.save({"somebody.else": torch.zeros(3)}, project.folder / "start.pt")
    return ("--set", "train.weights=start.pt", "--set", "train.epochs=1")


def evidence_of_nothing(project: Project) -> tuple[str, ...]:
    path = project.folder / "evidence.json"
    path.write_text("{}")
    return ("--evidence", str(path))


WINE, CANCER = "onnx_start", "breast_cancer"
FAILURES: list[tuple[str, str, Provoke, int, str]] = [
    ("a recipe that is no TOML", WINE, edit("recipe.toml", "[model]", "[model"), 2, "recipe.toml: not readable as TOML"),
    ("an unknown key", WINE, edit("recipe.toml", "max_drop", "max_drp"), 2, "did you mean metric[0].max_drop?"),
    ("a value of the wrong type", WINE, setting("metric.max_drop=much"), 2, "--set metric.max_drop"),
    ("an unknown profile", WINE, setting("target.profile=x86-64-gpu"), 2, "did you mean x86-64-cpu?"),
    ("an unknown scheme", WINE, setting('compress.schemes=["onnxruntime-int9"]'), 2, "no scheme 'onnxruntime-int9'; known: "),
    ("a scheme the model cannot take", WINE, setting('compress.schemes=["onnxruntime-int8-qat"]'), 4,
     "compress.schemes: onnxruntime-int8-qat-7bit cannot be made: there is no torch network to train again"),
    ("an unknown metric", WINE, setting("metric.name=acuracy"), 2, "no metric known here"),
    ("a data source that is not there", WINE, setting("data.source=wine.py:split"), 2, "wine.py"),
    ("a data file that is not there", WINE, setting("data.options.path=no.csv"), 4, "no.csv"),
    ("NaN in the data", WINE, returned("split['train'][0][3, 2] = np.nan"), 4, "split 'train', input 'input': NaN at row 3[2]"),
    ("text as data", WINE, returned("split['train'] = (split['train'][0].astype(str), split['train'][1])"), 4, "encode it as numbers"),
    ("one class only", WINE, returned("split['train'] = (split['train'][0], split['train'][1] * 0)"), 4, "holds one class only"),
    ("an empty split", WINE, returned("split['test'] = (split['test'][0][:0], split['test'][1][:0])"), 4, "split 'test' is empty"),
    ("a label out of range", WINE, returned("split['test'][1][2] = 7"), 4, "label 7 at row 2 is outside 0..2"),
    ("a split left out", WINE, returned("del split['validation']"), 4, "returned no 'validation' split"),
    ("columns that differ", WINE, returned("split['test'] = (split['test'][0][:, 1:], split['test'][1])"), 4, "split 'test'"),
    ("a file that is no ONNX", WINE, overwritten("wine.onnx", b"nothing"), 4, "wine.onnx is not a valid ONNX model"),
    ("a latency limit below the floor", WINE, setting("target.max_latency_ms=0.000001"), 3, "nearest is"),
    ("a metric beyond reach", WINE, setting("metric.limit=1.01"), 3, "the limit 1.01"),
    ("a size limit below the floor", WINE, setting("target.max_size_kb=0.001"), 3, "no variant meets max_size_kb = 0.001; nearest is"),
    ("a limit that cannot be checked here", WINE, setting("target.profile=generic-arm64"), 3, "--allow-unmeasured"),
    ("evidence of nothing", WINE, evidence_of_nothing, 6, "evidence.json: "),
    ("evidence that is not there", WINE, flag("--evidence", "no.json"), 2, "--evidence no.json"),
    ("training an ONNX file", WINE, setting("train.epochs=1"), 2, "[train] cannot train an ONNX file"),
    ("a corrupt image", CANCER, corrupt_image, 4, "1.png"),
    ("a network that cannot be built", CANCER, setting("model.options.hiden=3"), 4, "hiden"),
    ("a network that does not fit the data", CANCER, own_network("return self.layer(x[:, :7])"), 4, "cannot take rows of"),
    ("an operator ONNX lacks", CANCER, own_network("return self.layer(x) + torch.linalg.qr(x[:, None, :2]).Q[:, 0]"), 4,
     "ONNX has no operator for aten.linalg_qr; own.py line 14: return self.layer(x) + torch.linalg.qr"),
    ("a branch on values", CANCER, own_network("return self.layer(x) if x.sum() > 0 else -self.layer(x)"), 4,
     "it branches on the values of a tensor"),
    ("a rate at which training diverges", CANCER, setting("train.learning_rate=1e30", "train.epochs=2"), 4, "lower train.learning_rate"),
    ("half precision on a CPU", CANCER, setting("train.precision=float16", "train.device=cpu"), 2, "float16"),
    ("weights of another network", CANCER, foreign_weights, 2, "nothing in start.pt fits the network"),
    ("an augmentation that is not there", CANCER, setting("train.augment=breast_cancer.py:flip"), 2, "flip"),
    ("a search over an unknown key", CANCER, setting("tune.space={'train.epoch' = {low = 1, high = 2}}"), 2, "train.epoch"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "provoke", "status", "text"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failure_is_one_line_and_a_status(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, provoke: Provoke, status: int, text: str
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, model)
    ended = run("build", project.recipe, "--out", project.out, *(provoke(project) or ()))
    assert ended.status == status, ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("toolchain: ")
    assert text in last
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert not list(project.out.rglob("manifest.json")), "an artifact was left although the build failed"
    assert not list((tmp_path / "cache").glob("work/*")), "a half-made result was left in the cache"


def test_there_are_enough_failures() -> None:
    assert len(FAILURES) >= 15


@pytest.fixture
def wine(tmp_path: Path) -> Project:
    return Project(tmp_path, WINE)


def start(project: Project, **environment: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-c",
        "from toolchain.cli import main; main()",
        "build",
        str(project.recipe),
        "--out",
        str(project.out),
    ]
    settings = {**os.environ, "EDGEWRIGHT_CACHE": str(project.cache_root), "EDGEWRIGHT_TRACKING": "off", **environment}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_build_leaves_nothing_half_written_and_goes_on(wine: Project, number: int, status: int) -> None:
    """Interrupted while it measures; what was finished before is taken from the cache by the next run."""
    process = start(wine)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("check"):
            process.send_signal(number)
            break
    _, rest = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in rest
    assert not wine.out.exists()
    result = wine.build()
    assert not next(stage for stage in result.stages if stage.name == "load data").ran
    assert Path(result.targets[0].path, "manifest.json").is_file()
    assert wine.build().ran is False


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_the_cache_is_one_line_and_the_next_build_goes_on(wine: Project, tmp_path: Path) -> None:
    small = tmp_path / "small"
    with small_disk(small, "48k"):
        process = start(wine, EDGEWRIGHT_CACHE=str(small / "cache"))
        _, err = process.communicate(timeout=120)
        assert process.returncode == 4
        last = err.strip().splitlines()[-1]
        assert last.startswith("toolchain: ")
        assert "No space left" in last
        assert "Traceback" not in err
        assert not wine.out.exists()
    assert wine.build().ran


def test_a_full_disk_under_the_output_leaves_the_last_release_whole(wine: Project, tmp_path: Path) -> None:
    wine.out = tmp_path / "small"
    with small_disk(wine.out, "256k"):
        target = Path(wine.build().targets[0].path)
        before = {path.name: path.read_bytes() for path in target.iterdir()}
        free = shutil.disk_usage(wine.out).free
        (wine.out / "filler").write_bytes(b"x" * max(0, free - 8192))
        wine.edit("recipe.toml", 'version = "1.0.0"', 'version = "1.0.0"\nlicence = "MIT"')
        process = start(wine)
        _, err = process.communicate(timeout=120)
        assert process.returncode != 0
        assert err.strip().splitlines()[-1].startswith("toolchain: ")
        assert "Traceback" not in err
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_file_size_limit_is_a_failure_not_a_crash(wine: Project) -> None:
    """The same as a full disk where no file system can be mounted."""
    program = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        f"from toolchain.cli import main\nmain(['build', {str(wine.recipe)!r}, '--out', {str(wine.out)!r}])"
    )
    environment = {**os.environ, "EDGEWRIGHT_CACHE": str(wine.cache_root)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 4
    assert done.stderr.strip().splitlines()[-1].startswith("toolchain: ")
    assert "Traceback" not in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2048
