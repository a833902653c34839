"""Do doctor, config, init and promote answer as they should on this host?"""

import json
import tomllib
from pathlib import Path

import pytest

from tests.toolchain.conftest import Run
from toolchain import doctor
from toolchain.config import SETTINGS
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.result import run_build


def test_doctor_knows_engines_tools_and_profiles(run: Run) -> None:
    ended = run("doctor", "--json")
    assert ended.status == 0
    found = {(each["area"], each["name"]): each for each in json.loads(ended.out)}
    assert found["run", "onnxruntime"]["ok"]
    assert found["train", "torch"]["needed"]
    assert ("measure for", "raspberrypi5") in found
    assert "onnxruntime" in run("doctor").out


def test_doctor_says_how_to_mend_and_ends_with_5(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", (("train", "no-such-package", "toolchain"),))
    monkeypatch.setattr(doctor, "_NEEDED", {"no-such-package"})
    ended = run("doctor")
    assert ended.status == 5
    assert 'pip install "edgewright[toolchain]"' in ended.out


def test_a_backend_that_breaks_does_not_break_the_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(name: str) -> object:
        raise ImportError(f"{name} lost a library")

    monkeypatch.setattr(doctor, "get_backend", broken)
    findings = doctor.examine(tmp_path)
    assert all(not each.ok and "lost a library" in each.detail for each in findings if each.area == "run")
    assert not doctor.is_fit(findings)


def test_each_setting_names_its_origin(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "toolchain.toml"
    file.write_text('fleet = "http://file:1"\nkeys = "~/file-keys"\n')
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(file))
    monkeypatch.setenv("EDGEWRIGHT_FLEET", "http://environment:1")
    monkeypatch.setenv("HOME", "/home/ada")
    values = json.loads(run("config", "show", "--json").out)
    assert values["fleet"] == {"value": "http://environment:1", "origin": "environment EDGEWRIGHT_FLEET"}
    assert values["keys"] == {"value": "/home/ada/file-keys", "origin": f"file {file}"}
    assert values["cache"] == {"value": "/home/ada/.cache/edgewright", "origin": "default"}
    assert values["tracking"]["value"] == "sqlite:////home/ada/.local/share/edgewright/mlflow.db"
    assert "environment EDGEWRIGHT_FLEET" in run("config", "show").out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [('flet = "x"', "did you mean fleet?"), ("fleet = 1", "expected a string"), ("fleet = ", "not readable as TOML")],
)
def test_a_wrong_settings_file_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "toolchain.toml"
    file.write_text(content)
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(file))
    ended = run("config", "show")
    assert ended.status == 2
    assert complaint in ended.err
    assert str(file) in ended.err


def test_a_settings_file_that_is_asked_for_must_be_there(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "absent.toml"))
    assert run("config", "show").status == 2


def test_a_new_project_builds_as_it_stands(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "flowers"
    ended = run("init", folder, "--model", "iris-flowers")
    assert ended.status == 0
    assert {file.name for file in folder.iterdir()} == {"recipe.toml", "iris_flowers.py", "README.md"}
    assert len((folder / "recipe.toml").read_text().splitlines()) <= 25
    cache = StageCache(tmp_path / "cache")
    result = run_build(folder / "recipe.toml", Silent(), cache=cache, changes=(), out=tmp_path / "out")
    assert result.targets[0].metrics[0].value > 0.8


@pytest.mark.parametrize(
    ("model", "module"), [("pumps", "pumps.py"), ("2024-model", "model_2024_model.py"), ("class", "model_class.py")]
)
def test_the_module_of_a_project_can_be_imported(run: Run, tmp_path: Path, model: str, module: str) -> None:
    run("init", tmp_path, "--model", model)
    assert (tmp_path / module).is_file()
    assert tomllib.loads((tmp_path / "recipe.toml").read_text())["model"]["network"] == f"{module}:network"


def test_init_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    ended = run("init", tmp_path, "--model", "pumps")
    assert ended.status == 2
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


def test_init_refuses_a_name_no_device_would_take(run: Run, tmp_path: Path) -> None:
    assert run("init", tmp_path, "--model", "Pumps!").status == 2
    assert list(tmp_path.iterdir()) == []


def test_promote_needs_tracking(run: Run) -> None:
    ended = run("promote", "digits", "1.0.0")
    assert ended.status == 2
    assert "tracking is off" in ended.err
