"""Do keys, publish and bundle end with the right status and one line that helps?"""

import json
from pathlib import Path

import pytest

from tests.toolchain.conftest import Run
from tests.toolchain.package.conftest import make_artifact

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_KEYS", str(tmp_path / "keys"))
    for name in ("EDGEWRIGHT_FLEET", "EDGEWRIGHT_TOKEN_FILE", "EDGEWRIGHT_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("fleet.client.transport.FIRST_PAUSE_S", 0.001)
    return tmp_path / "keys"


def test_keys_are_made_shown_and_never_overwritten(run: Run, settings: Path) -> None:
    made = json.loads(run("keys", "create", "--json").out)
    assert Path(made["root"]) == settings / "root.json"
    shown = json.loads(run("keys", "show", "--json").out)
    held = {role["name"]: role["keyids"] for role in shown["roles"] if role["is_held"]}
    assert held == {"root": [made["keys"]["root"]], "targets": [made["keys"]["targets"]]}
    again = run("keys", "create")
    assert again.status == 2
    assert "exists already" in again.err


def test_a_passphrase_comes_from_the_environment_only(run: Run, settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_KEY_PASSPHRASE", "open sesame")
    assert run("keys", "create").status == 0
    assert b"ENCRYPTED" in (settings / "root.key").read_bytes()


def test_without_keys_the_next_step_is_named(run: Run) -> None:
    ended = run("keys", "show")
    assert ended.status == 2
    assert "toolchain keys create" in ended.err


@pytest.mark.parametrize("command", ["publish", "bundle"])
def test_a_fleet_must_be_named(run: Run, tmp_path: Path, command: str) -> None:
    ended = run(command, make_artifact(tmp_path).parent)
    assert ended.status == 2
    assert "EDGEWRIGHT_FLEET" in ended.err


def test_a_fleet_out_of_reach_is_a_failed_step(run: Run, tmp_path: Path) -> None:
    run("keys", "create")
    ended = run("publish", make_artifact(tmp_path).parent, "--to", NOWHERE)
    assert ended.status == 4
    assert NOWHERE in ended.err
    assert run("keys", "authorize", "--to", NOWHERE).status == 4
    assert run("keys", "rotate", "root", "--to", NOWHERE).status == 4


def test_a_tampered_artifact_is_refused_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    run("keys", "create")
    artifact = make_artifact(tmp_path)
    (artifact / "model.onnx").write_bytes(b"other")
    ended = run("publish", artifact.parent, "--to", NOWHERE)
    assert ended.status == 6
    assert "model.onnx" in ended.err


def test_an_unreadable_token_file_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    ended = run("publish", make_artifact(tmp_path).parent, "--to", NOWHERE, "--token-file", tmp_path / "absent")
    assert ended.status == 2
    assert "--token-file" in ended.err


def test_an_address_that_is_none_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    assert run("publish", make_artifact(tmp_path).parent, "--to", "localhost:8080").status == 2
