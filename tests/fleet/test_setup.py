"""A home is made whole or finished later, and never made twice."""

from pathlib import Path

import pytest

from fleet import setup
from fleet.config import CONFIG_NAME, Config, load
from fleet.errors import SetupError
from fleet.services import ADMIN_TOKEN, open_services
from fleet.setup import initialise
from runtime.contract.errors import ContractError
from tests.fleet.peers import root_json

STEPS = ["ServiceKeys.create", "TrustStore.create", "Authority.create", "write_durably", "_fill_database"]


def test_a_home_holds_everything_and_its_secrets_are_the_owners_only(config: Config) -> None:
    token_file = initialise(config, root_json())
    home = config.home
    assert home.stat().st_mode & 0o077 == 0
    for secret in [token_file, *(home / "keys").glob("*.key"), home / "ca" / "ca.key"]:
        assert secret.stat().st_mode & 0o077 == 0, secret
    read_back = load(home / CONFIG_NAME, {}, {})[0]
    assert (read_back.fleet.name, read_back.door, read_back.broker) == (config.fleet.name, config.door, config.broker)
    open_services(config).close()


def test_a_second_time_is_refused_and_changes_nothing(config: Config) -> None:
    token = initialise(config, root_json()).read_bytes()
    with pytest.raises(SetupError, match=r"admin\.token"):
        initialise(config, root_json())
    assert (config.home / ADMIN_TOKEN).read_bytes() == token


@pytest.mark.parametrize("step", STEPS)
def test_an_initialisation_cut_short_at_any_step_is_finished_by_the_next(
    config: Config, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        owner, _, name = step.rpartition(".")
        patch.setattr(getattr(setup, owner) if owner else setup, name, die)
        with pytest.raises(KeyboardInterrupt):
            initialise(config, root_json())
    with pytest.raises(SetupError, match="fleet init"):
        open_services(config)
    initialise(config, root_json())
    open_services(config).close()


def test_a_root_that_is_none_is_refused_before_anything_is_trusted(config: Config) -> None:
    with pytest.raises(ContractError):
        initialise(config, b"{}")
    assert not (config.home / ADMIN_TOKEN).exists()


def test_a_folder_that_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="fleet init"):
        open_services(load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(tmp_path)})[0])
