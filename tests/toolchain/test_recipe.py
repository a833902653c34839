"""Is every mistake in a recipe named with its place and the nearest valid key?"""

from pathlib import Path

import pytest

from toolchain.errors import RecipeError
from toolchain.recipe import load_recipe, parse_recipe

MINIMAL = {
    "model": {"name": "digits", "version": "1.0.0", "network": "digits.py:network"},
    "data": {"source": "digits.py:splits"},
}

TEXT = """
[model]
name = "digits"
version = "1.0.0"
network = "digits.py:network"
options = { width = 16 }
[data]
source = "digits.py:splits"
[train]
epochs = 15
[metric]
name = "accuracy"
[[target]]
profile = "x86-64-cpu"
[[target]]
profile = "generic-arm64"
"""


def test_defaults_fill_everything_else() -> None:
    recipe = parse_recipe(MINIMAL, "recipe.toml")
    assert recipe.train is None
    assert recipe.metrics[0].name == "accuracy"
    assert [target.profile for target in recipe.targets] == ["x86-64-cpu"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "recipe.toml: trian: unknown key; did you mean train?"),
        ({"train": {"epoch": 3}}, "recipe.toml: train.epoch: unknown key; did you mean train.epochs?"),
        ({"train": {"epochs": 3, "zzz": 1}}, "recipe.toml: train.zzz: unknown key; known here: train.epochs, train.seed"),
        ({"target": [{"profil": "x"}]}, "recipe.toml: target[0].profil: unknown key; did you mean target[0].profile?"),
        ({"consent": {"raw_sample": True}}, "recipe.toml: consent.raw_sample: unknown key; did you mean consent.raw_samples?"),
        ({"train": {"epochs": "many"}}, "recipe.toml: train.epochs: Expected `int`, got `str`"),
        ({"train": {"epochs": 0}}, "recipe.toml: train.epochs: Expected `int` >= 1"),
        ({"train": {}}, "recipe.toml: train.epochs: this key is required"),
        ({"model": 3}, "recipe.toml: model: Expected `object`, got `int`"),
        ({"metric": []}, "recipe.toml: metric: Expected `array` of length >= 1"),
        ({"target": [{"profile": "x", "max_latency_ms": -1}]}, "recipe.toml: target[0].max_latency_ms: Expected `float` > 0.0"),
        ({"compress": {"methods": ["melt"]}}, "recipe.toml: compress.methods[0]: Invalid enum value 'melt'"),
        ({"target": [{"profile": "a"}, {"profile": "a"}]}, "two targets have profile 'a'"),
        ({"metric": [{"name": "rmse"}, {"name": "rmse"}]}, "two [[metric]] tables have the same name"),
        ({"model": {**MINIMAL["model"], "network": "onnx:a.onnx"}, "train": {"epochs": 1}}, "[train] cannot train an ONNX file"),
        ({"model": {**MINIMAL["model"], "output_kind": "anomaly"}, "train": {"epochs": 1}}, "train.loss is required"),
        ({"model": {**MINIMAL["model"], "name": "Digits!"}}, "recipe.toml: model.name: Expected `str` matching regex"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(MINIMAL | change, "recipe.toml")
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


def write(tmp_path: Path, text: str = TEXT) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"), [("[model", "not readable as TOML"), ("\x00", "not readable as TOML"), (None, "no such recipe")]
)
def test_unreadable_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "recipe.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_settings_change_values_of_any_type(tmp_path: Path) -> None:
    changes = [
        "train.epochs=3",
        "model.version=1.1.0",
        "data.options.path=/tmp/x y.csv",
        "model.options.width=24",
        "metric.max_drop=0",
    ]
    recipe = load_recipe(write(tmp_path), [*changes, "data.options.relabel={7=1}"])
    assert recipe.train is not None
    assert recipe.train.epochs == 3
    assert recipe.model.version == "1.1.0"
    assert recipe.model.options == {"width": 24}
    assert recipe.data.options == {"path": "/tmp/x y.csv", "relabel": {"7": 1}}
    assert recipe.metrics[0].max_drop == 0


def test_a_setting_reaches_all_tables_or_one(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert [target.max_latency_ms for target in load_recipe(path, ["target.max_latency_ms=2"]).targets] == [2, 2]
    assert [target.max_latency_ms for target in load_recipe(path, ["target.1.max_latency_ms=2"]).targets] == [None, 2]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=3", "--set train.epoch: unknown key; did you mean train.epochs?"),
        ("train.epochs=many", "--set train.epochs: Expected `int`, got `str`"),
        ("target.0.profil=a", "--set target.0.profil: unknown key; did you mean target[0].profile?"),
        ("target.7.profile=a", "--set target.7.profile: '7' is no index of 2 tables"),
        ("train", "--set train: expected key=value"),
        ("model.name.first=a", "--set model.name.first: name is not a table"),
    ],
)
def test_mistakes_in_settings_name_the_flag(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path), [setting])
    assert message in str(caught.value)


def test_digest_is_of_the_meaning(tmp_path: Path) -> None:
    first = load_recipe(write(tmp_path)).sha256
    reordered = TEXT.replace('name = "digits"\nversion = "1.0.0"', '# why\nversion = "1.0.0"\nname = "digits"')
    assert load_recipe(write(tmp_path, reordered)).sha256 == first
    assert load_recipe(write(tmp_path), ["train.epochs=16"]).sha256 != first
