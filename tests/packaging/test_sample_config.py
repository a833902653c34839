"""The configuration file in the package: every key with its default, and none that the daemon does not know."""

import re
import tomllib
from pathlib import Path

import pytest

from runtime.config import Config, load_config, settings
from runtime.packaging.sample_config import sample_config, toml_value

KEY = re.compile(r"^#(\w+ = )", re.MULTILINE)


def test_untouched_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runtime.toml"
    path.write_text(sample_config())
    config, origins = load_config(path, environment={})
    assert config == Config()
    assert {setting.origin for setting in origins.values()} == {"default"}


def test_with_every_key_uncommented_it_is_the_default_configuration(tmp_path: Path) -> None:
    path = tmp_path / "runtime.toml"
    path.write_text(KEY.sub(r"\1", sample_config()))
    config, origins = load_config(path, environment={})
    assert config == Config()
    assert [key for key, setting in origins.items() if not setting.origin.startswith("file")] == []
    assert list(origins) == [key for key, _ in settings(Config())]


@pytest.mark.parametrize("section", Config.__struct_fields__)
def test_each_section_says_what_its_keys_mean(section: str) -> None:
    head = sample_config().partition(f"[{section}]\n")[2].partition("\n#")[0]
    assert head.startswith("# ") or not type(getattr(Config(), section)).__doc__, head


def test_bounds_stand_beside_the_keys_that_have_some() -> None:
    lines = {line.partition(" = ")[0]: line for line in sample_config().splitlines() if KEY.match(line)}
    assert lines["#port"].endswith("# 0 to 65,535")
    assert lines["#log_level"].partition("# ")[2].count("|") == 3
    assert "#" not in lines["#state_dir"][1:]


@pytest.mark.parametrize("value", ["", 'a "b" \\ c', 0, -1, 0.1, True, ("a", "b"), [1, 2], {"a b": 1}])
def test_values_are_written_as_toml_reads_them(value: object) -> None:
    read = tomllib.loads(f"key = {toml_value(value)}")["key"]
    assert read == (list(value) if isinstance(value, tuple) else value)


def test_value_without_a_word_in_toml_is_refused() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml_value(None)
