"""Is every value typed, bounded and traceable, and every mistake named with its nearest cure?"""

import pytest

from runtime.config import Config, load_config, parse_assignments
from runtime.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "runtime.toml"
    path.write_text(text)
    return path


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    path = write(tmp_path, "[serving]\nport = 1\nhost = 'file'\nunix_socket = 'file'\n")
    environment = {"EDGEWRIGHT_RUNTIME_SERVING_PORT": "2", "EDGEWRIGHT_RUNTIME_SERVING_HOST": "environment"}
    config, origins = load_config(path, {"serving.port": "3"}, environment)
    assert (config.serving.port, config.serving.host, config.serving.unix_socket) == (3, "environment", "file")
    assert origins["serving.port"].origin == "flag"
    assert origins["serving.host"].origin == "environment EDGEWRIGHT_RUNTIME_SERVING_HOST"
    assert origins["serving.unix_socket"].origin == f"file {path}"
    assert origins["device.state_dir"].origin == "default"


def test_every_key_is_shown_once_with_its_value(tmp_path):
    config, origins = load_config(None, {}, {})
    assert config == Config()
    assert len(origins) == sum(len(getattr(config, section).__struct_fields__) for section in config.__struct_fields__)


def test_the_file_can_be_named_by_the_environment(tmp_path):
    path = write(tmp_path, "[device]\nlog_level = 'debug'\n")
    assert load_config(None, {}, {"EDGEWRIGHT_RUNTIME_CONFIG": str(path)})[0].device.log_level == "debug"


@pytest.mark.parametrize(
    ("text", "flags", "environment", "expected"),
    [
        ("[serving]\nprot = 1\n", {}, {}, "nearest is serving.port"),
        ("[servin]\nport = 1\n", {}, {}, r"nearest is \[serving\]"),
        ("[servin]\n", {}, {}, r"nearest is \[serving\]"),
        ("port = 1\n", {}, {}, "must be a table"),
        ("[serving\n", {}, {}, "runtime.toml"),
        ("[serving]\nport = '1'\n", {}, {}, "serving.port.*Expected `int`"),
        ("[serving]\nport = 70000\n", {}, {}, "serving.port"),
        ("", {"serving.port": "x"}, {}, "flag: serving.port"),
        ("", {"serving.prot": "1"}, {}, "nearest is serving.port"),
        ("", {}, {"EDGEWRIGHT_RUNTIME_SERVING_PROT": "1"}, "SERVING_PROT.*nearest is serving.port"),
        ("", {}, {"EDGEWRIGHT_RUNTIME_UPDATE_PROBATION_MAX_ERROR_RATIO": "1.5"}, "probation_max_error_ratio"),
    ],
)
def test_mistakes_are_errors_that_name_the_cure(tmp_path, text, flags, environment, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(write(tmp_path, text), flags, environment)


def test_text_becomes_the_type_of_its_key():
    config, _ = load_config(None, parse_assignments(["profile.names=a, b", "update.probation_max_error_ratio=0.5"]), {})
    assert config.profile.names == ("a", "b")
    assert config.update.probation_max_error_ratio == 0.5


def test_an_assignment_needs_its_equals_sign():
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_assignments(["serving.port"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml", {}, {})


def test_the_configuration_is_frozen():
    with pytest.raises(AttributeError):
        Config().serving.port = 1
