"""Each value from the strongest source, with its origin; mistakes named with the nearest valid key."""

from pathlib import Path

import pytest

from fleet.config import find_credentials, load
from fleet.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    file = folder / "fleet.toml"
    file.write_text(text)
    return file


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path, '[api]\nport = 1001\nhost = "::1"\n[door]\nport = 1001\n[broker]\nport = 1001\n')
    environment = {"EDGEWRIGHT_FLEET_DOOR_PORT": "1002", "EDGEWRIGHT_FLEET_BROKER_PORT": "1002"}
    config, settings = load(file, {"broker.port": 1003, "fleet.name": None}, environment)
    assert (config.api.port, config.door.port, config.broker.port, config.fleet.name) == (1001, 1002, 1003, "edge")
    origins = {setting.key: setting.origin for setting in settings}
    assert origins["api.port"] == str(file)
    assert origins["door.port"] == "environment EDGEWRIGHT_FLEET_DOOR_PORT"
    assert origins["broker.port"] == "flag"
    assert origins["fleet.name"] == "default"
    assert config.api_url == "http://[::1]:1001"


def test_the_home_is_where_the_file_lies_unless_said_otherwise(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}, {})[0].home == tmp_path
    assert load(write(tmp_path, '[fleet]\nhome = "/srv/fleet"\n'), {}, {})[0].home == Path("/srv/fleet")
    assert load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(tmp_path / "a")})[0].home == tmp_path / "a"
    config = load(write(tmp_path, '[fleet]\ndatabase = "postgresql+psycopg:///fleet"\n'), {}, {})[0]
    assert config.database_url == "postgresql+psycopg:///fleet"


def test_a_list_in_the_environment_is_written_with_commas(tmp_path: Path) -> None:
    config, _ = load(write(tmp_path, ""), {}, {"EDGEWRIGHT_FLEET_DOOR_NAMES": "fleet.example, 10.0.0.5"})
    assert config.door.names == ("fleet.example", "10.0.0.5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[apy]\n", ["apy"]),
        ("[apy]\nport = 1\n", ["[apy]", "api"]),
        ("[api]\nprot = 1\n", ["prot", "did you mean port"]),
        ("[api]\nport = 70000\n", ["api.port", "70000"]),
        ('[api]\nport = "80"\n', ["api.port"]),
        ('[broker]\nmode = "magic"\n', ["broker.mode"]),
        ("[door]\nnames = []\n", ["door.names"]),
        ('[fleet]\nname = "My Fleet"\n', ["fleet.name"]),
        ("port = 1\n", ["port", "section"]),
        ("[api\n", ["fleet.toml"]),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    for word in [*words, str(file)]:
        assert word in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EDGEWRIGHT_FLEET_API_PORT"):
        load(write(tmp_path, ""), {}, {"EDGEWRIGHT_FLEET_API_PORT": "many"})


def test_only_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    assert load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(tmp_path / "empty")})[0].api.port == 8080
    with pytest.raises(ConfigError, match="fleet init"):
        load(tmp_path / "none.toml", {}, {})


def test_credentials_come_from_flags_then_environment_then_the_home(tmp_path: Path) -> None:
    config = load(write(tmp_path, ""), {}, {})[0]
    assert find_credentials(lambda: config, None, None, {}) == ("http://127.0.0.1:8080", tmp_path / "admin.token")
    environment = {"EDGEWRIGHT_FLEET": "http://fleet:1", "EDGEWRIGHT_TOKEN_FILE": "/run/token"}
    assert find_credentials(lambda: config, None, None, environment) == ("http://fleet:1", Path("/run/token"))
    given = find_credentials(lambda: config, "http://other:2", Path("mine"), environment)
    assert given == ("http://other:2", Path("mine"))
