"""Does the command end with the right status, one line of reason, and data on stdout only?"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.contract.errors import DigestError
from runtime.errors import EngineMissingError
from tests.toolchain.conftest import Project
from toolchain.cli import entry, main
from toolchain.pipeline import result as result_module
from toolchain.pipeline.record import BuildResult


class Ended(msgspec.Struct):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Ended(stop.value.code, captured.out, captured.err)

    return call


def only_line(ended: Ended) -> str:
    assert ended.out == ""
    (line,) = ended.err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["bild"], 2, "No such command 'bild'. Did you mean 'build'?"),
        (["build"], 2, "Missing argument"),
        (["build", "--eplain", "x.toml"], 2, "No such option: --eplain"),
        (["build", "no/such.toml"], 2, "no/such.toml: no such recipe"),
        (["cache", "gc", "--days", "-1"], 2, "--days"),
    ],
)
def test_bad_usage_is_2_and_one_line(run: Any, arguments: list[str], status: int, text: str) -> None:
    ended = run(*arguments)
    assert ended.status == status
    assert text in only_line(ended)


def test_help_is_0(run: Any) -> None:
    ended = run("--help")
    assert ended.status == 0
    assert "build" in ended.out
    assert ended.err == ""


def test_unknown_key_is_2_and_names_file_key_and_nearest(run: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, "onnx_start")
    project.edit("recipe.toml", "max_drop", "max_drp")
    ended = run("build", project.recipe)
    assert ended.status == 2
    assert only_line(ended) == f"toolchain: {project.recipe}: metric[0].max_drp: unknown key; did you mean metric[0].max_drop?"


def test_build_and_nothing_to_do(run: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, "onnx_start")
    first = run("build", project.recipe, "--out", project.out, "--set", "compress.methods=[]", "--json")
    assert first.status == 0
    stages = msgspec.json.decode(first.out, type=BuildResult).stages
    assert all(stage.ran for stage in stages)
    assert "take onnx: onnxruntime-float32" in first.err
    second = run("build", project.recipe, "--out", project.out, "--set", "compress.methods=[]", "--explain")
    assert second.status == 0
    assert "nothing changed" in second.out
    assert second.err.count("nothing it depends on changed") == len(stages)
    shown = run("cache", "show", "--json")
    assert len(json.loads(shown.out)["entries"]) == len(stages)
    assert run("cache", "gc").out == "dropped 0 entries, 0 KiB\n"
    assert run("cache", "gc", "--all").out.startswith(f"dropped {len(stages)} entries")
    assert "0 entries" in run("cache", "show").out


def test_unmet_limit_is_3(run: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, "onnx_start")
    limit = "target.max_latency_ms=0.000001"
    ended = run("build", project.recipe, "--out", project.out, "--set", "compress.methods=[]", "--set", limit)
    assert ended.status == 3
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("toolchain: target x86-64-cpu: no variant meets max_latency_ms = 1e-06; nearest is")
    nearest = project.out / "nearest" / "wine" / "1.0.0" / "x86-64-cpu"
    assert f"saved as {nearest}, not to be released" in last
    assert {"model.onnx", "why.txt"} == {path.name for path in nearest.iterdir()}
    assert [path.name for path in project.out.iterdir()] == ["nearest"]


def test_bad_data_is_4(run: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, "onnx_start")
    project.edit("wine.py", "    parts = {", "    values[0, 0] = np.nan\n    parts = {")
    ended = run("build", project.recipe, "--out", project.out)
    assert ended.status == 4
    assert ended.err.strip().splitlines()[-1] == (
        "toolchain: split 'train', input 'input': NaN at row 0[0]; 1 rows are not finite"
    )


def test_output_that_cannot_be_written_is_2(run: Any, tmp_path: Path) -> None:
    project = Project(tmp_path, "onnx_start")
    project.out.write_text("a file in its place")
    ended = run("build", project.recipe, "--out", project.out)
    assert ended.status == 2
    assert "cannot be written" in ended.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineMissingError("install the extra"), 5),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 5),
        (DigestError("flipped"), 6),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("oops"), 1),
    ],
)
def test_status_of_everything_else(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(result_module, "run_build", fail)
    ended = run("build", tmp_path / "recipe.toml")
    assert ended.status == status
    assert "Traceback" not in ended.err
    only_line(ended)


def test_debug_shows_where(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run("build", "no/such.toml", "--debug")
    assert "Traceback" in ended.err
    assert ended.err.strip().splitlines()[-1].startswith("toolchain: ")


def test_without_the_extra_the_install_line_and_5() -> None:
    program = "import sys\nsys.modules['typer'] = None\nfrom toolchain.cli import main\nmain(['build', 'x.toml'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.strip() == entry.INSTALL_LINE


def test_closed_output_is_no_error(tmp_path: Path) -> None:
    """`toolchain --help | head -0`."""
    program = "from toolchain.cli import main\nmain(['--help'])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
