"""Does each command of `runtime` do its work, print data to stdout and end with the status its outcome has?"""

import datetime
import json
import subprocess
import sys

import numpy as np
import pytest

from runtime import install as module
from runtime.cli import main
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import Deployment, Desired, Outcome
from runtime.errors import ConfigError, UnsuitableError
from runtime.files import held_alone
from runtime.update.machine import Job
from runtime.update.store import STATE_FILE, Held, Store
from tests.runtime.update.conftest import direct
from tests.support.artifacts import FEATURES, PROFILE, TARGET, scores, write_artifact
from tests.support.store import ReleaseStore

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "device"


@pytest.fixture
def run(state_dir, capsys):
    """Run a command in this process. Returns status, stdout and stderr."""

    def run_one(*arguments):
        status = main([*arguments, "--set", f"device.state_dir={state_dir}"])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_one


@pytest.fixture
def release(tmp_path):
    """A store with one release, its bundle and its root on disk."""
    store = ReleaseStore()
    write_artifact(tmp_path / "artifact")
    store.publish(tmp_path / "artifact")
    store.write_bundle(tmp_path / "tiny.edge")
    (tmp_path / "root.json").write_bytes(store.root)
    return store


@pytest.fixture
def install(run, tmp_path, monkeypatch):
    """Install with the helper's work done in this process, on a device that fits the test target."""
    monkeypatch.setattr(module, "delegate", direct)
    monkeypatch.setattr(module, "detect_profile", lambda _settings: PROFILE)
    return lambda *more: run("install", str(tmp_path / "tiny.edge"), *more)


def test_a_bundle_is_installed_shown_and_run(install, run, release, tmp_path, state_dir):
    status, out, _ = install("--root", str(tmp_path / "root.json"), "--json")
    assert status == 0
    assert json.loads(out) == {"model": "tiny", "version": "1.0.0", "target": TARGET, "slot": "a", "serves": False}

    status, out, _ = run("status", "--json")
    (shown,) = json.loads(out)["models"]
    assert status == 0
    assert (shown["model"], shown["artifact"]["version"], shown["slot"], shown["state"]) == ("tiny", "1.0.0", "a", "probation")
    assert "tiny: serves 1.0.0 (slot a)" in run("status")[1]
    assert "engine for tiny: reference 1.0.0" in run("doctor")[1]
    (state_dir / "engines.json").write_bytes(b'{"tiny": "reference 1.0.0 instead of tensorrt (not installed)"}')
    assert "runs in reference 1.0.0 instead of tensorrt" in run("status")[1]
    (state_dir / "blobs" / "sha256" / f"{'0' * 64}.part").write_bytes(bytes(1_500_000))
    assert "fetching: 1.5 MB" in run("status")[1]

    np.savez(tmp_path / "rows.npz", input=ROWS)
    status, out, _ = run("infer", "tiny", str(tmp_path / "rows.npz"), "--json")
    assert status == 0
    np.testing.assert_allclose(json.loads(out)["output"]["data"], scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    assert run("infer", "tiny", str(tmp_path / "rows.npz"), "--out", str(tmp_path / "out.npz"))[0] == 0
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_allclose(outputs["output"], scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)


def test_status_tells_lanes_shares_and_what_is_held_back(install, run, release, tmp_path, state_dir):
    other = write_artifact(tmp_path / "other", version="2.0.0")
    assert install("--root", str(tmp_path / "root.json"))[0] == 0
    store = Store(state_dir / STATE_FILE)
    deployments = (
        Deployment(model="tiny", role="shadow", share=500, artifact=other, not_before=4_000_000_000),
        Deployment(model="absent", role="split", share=2500, artifact=other),
    )
    desired = Desired(device="dev", generation=7, issued_at=0, expires=4_000_000_000, deployments=deployments)
    store.hold(Held(b"", write_message(desired, DESIRED_LIMIT)))
    store.save_job(Job(model="tiny", role="shadow", share=500, artifact=other, slot="a", outcome=Outcome.NONE))
    store.close()
    assert run("status")[1].splitlines() == [
        "device (not enrolled), fleet -, generation 7",
        "tiny: serves 1.0.0 (slot a); probation, last update none",
        "absent as split on 25.00% of the traffic: serves nothing; idle, last update none update.no_active",
        "  held back: absent has no active version here, beside which a split could run",
        "tiny as shadow on 5.00% of the traffic: serves nothing; idle, last update none",
        "  held back: until 4000000000 (Unix seconds), as the fleet asked",
    ]
    assert [shown["share"] for shown in json.loads(run("status", "--json")[1])["models"]] == [10_000, 2500, 500]


def test_without_a_pinned_root_nothing_is_believed(install, release):
    status, _, err = install()
    assert status == 2
    assert "pinned" in err


def test_another_root_cannot_be_pinned_over_the_first(install, release, tmp_path):
    assert install("--root", str(tmp_path / "root.json"))[0] == 0
    (tmp_path / "root.json").write_bytes(ReleaseStore().root)
    status, _, err = install("--root", str(tmp_path / "root.json"))
    assert status == 2
    assert "another release root" in err


@pytest.mark.parametrize("part", ["blob", "manifest", "metadata"])
def test_a_tampered_bundle_is_refused(install, release, tmp_path, part):
    folder = {"blob": release.blobs, "manifest": release.files, "metadata": release.files}[part]
    ending = {"blob": "", "manifest": ".manifest.json", "metadata": "timestamp.json"}[part]
    for name in [name for name in folder if name.endswith(ending)]:
        raw = folder[name]
        folder[name] = raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :]
    release.write_bundle(tmp_path / "tiny.edge")
    status, _, err = install("--root", str(tmp_path / "root.json"))
    assert status == 6
    assert "[trust." in err


LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("expired", "last_contact", "status"),
    [
        ("", None, 0),
        ("timestamp", None, 0),
        ("timestamp", LONG_AGO - datetime.timedelta(days=1), 0),
        ("timestamp", LONG_AGO + datetime.timedelta(days=1), 6),
        ("everything", None, 6),
    ],
)
def test_a_bundle_is_judged_by_the_last_contact_and_what_the_engineer_signed_by_now(
    install, release, tmp_path, state_dir, expired, last_contact, status
):
    if expired == "timestamp":
        release.sign(expires=LONG_AGO)
    elif expired == "everything":
        release.sign_all(LONG_AGO)
    release.write_bundle(tmp_path / "tiny.edge")
    if last_contact is not None:
        state_dir.mkdir()
        store = Store(state_dir / STATE_FILE)
        store.vouch_time(int(last_contact.timestamp()))
        store.close()
    found, _, err = install("--root", str(tmp_path / "root.json"))
    assert found == status
    assert ("[trust.expired]" in err) is (status == 6)


def test_a_full_disk_is_told_before_the_first_byte(install, release, tmp_path, state_dir):
    reserve = tmp_path / "runtime.toml"
    reserve.write_text(f"[update]\nreserve_bytes = {2**60}\n")
    status, _, err = install("--root", str(tmp_path / "root.json"), "--config", str(reserve))
    assert status == 4
    assert "[update.disk_full]" in err
    assert list((state_dir / "blobs" / "sha256").iterdir()) == []


def test_what_is_no_bundle_is_bad_usage(install, tmp_path, release):
    (tmp_path / "tiny.edge").write_bytes(b"no zip")
    status, _, err = install("--root", str(tmp_path / "root.json"))
    assert status == 2
    assert "bundle" in err


def test_a_device_in_use_by_something_deaf_is_left_alone(install, release, tmp_path, state_dir, monkeypatch):
    monkeypatch.setattr(module, "TAKE_UP_S", 0.01)
    state_dir.mkdir()
    with held_alone(state_dir):
        status, _, err = install("--root", str(tmp_path / "root.json"))
    assert status == 2
    assert "[config.in_use]" in err
    store = Store(state_dir / STATE_FILE)
    assert store.side_loads() == ()
    store.close()


@pytest.mark.parametrize(
    ("model", "target", "error"),
    [("", "", None), ("tiny", TARGET, None), ("absent", "", ConfigError), ("", "other-cpu", UnsuitableError)],
)
def test_choosing_from_a_bundle(release, tmp_path, model, target, error):
    bundle = tmp_path / "tiny.edge"
    if error:
        with pytest.raises(error):
            module.choose(bundle, PROFILE, model=model, target=target)
    else:
        assert module.choose(bundle, PROFILE, model=model, target=target)[0] == "tiny"


def test_two_models_in_a_bundle_must_be_told_apart(release, tmp_path):
    write_artifact(tmp_path / "second", model="other")
    release.publish(tmp_path / "second", "other")
    release.write_bundle(tmp_path / "tiny.edge")
    with pytest.raises(ConfigError, match="--model other"):
        module.choose(tmp_path / "tiny.edge", PROFILE, model="", target="")
    assert module.choose(tmp_path / "tiny.edge", PROFILE, model="tiny", target="")[0] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["infer", "absent", "x.npz"], 2, "unknown model"),
        (["status", "--config", "absent.toml"], 2, "absent.toml"),
        (["status", "--set", "serving.prot=1"], 2, "nearest is serving.port"),
        (["enroll", "nonsense"], 4, "not an enrolment token"),
        (["config", "show", "--set", "port"], 2, "section.key=value"),
    ],
)
def test_failures_are_one_line_with_a_status(run, arguments, status, word):
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert word in err
    assert len(err.strip().splitlines()) == 1


def test_bad_usage_is_status_2(run):
    with pytest.raises(SystemExit) as stop:
        run("nonsense")
    assert stop.value.code == 2


def test_a_new_device_has_a_status(run):
    status, out, _ = run("status", "--json")
    assert status == 0
    assert json.loads(out)["models"] == []


def test_doctor_names_engines_and_what_is_missing(run, state_dir):
    status, out, _ = run("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(out)}
    assert status == 0
    assert "reference 1.0.0" in findings["engines"]["detail"]
    (state_dir / "identity").mkdir(parents=True)
    (state_dir / "identity" / "identity.json").write_text("{")
    status, out, _ = run("doctor")
    assert status == 3
    assert "FAIL identity" in out


def test_doctor_tells_of_a_disk_without_room_for_an_update(run, state_dir):
    state_dir.mkdir()
    assert " MB left" in run("doctor")[1]
    status, out, _ = run("doctor", "--set", f"update.reserve_bytes={1 << 60}")
    assert status == 3
    assert "FAIL state directory" in out
    assert "free some space" in out


def test_config_show_gives_values_with_origins(run):
    status, out, _ = run("config", "show", "--json")
    shown = json.loads(out)
    assert status == 0
    assert shown["serving.port"] == {"value": 8000, "origin": "default"}
    assert shown["device.state_dir"]["origin"] == "flag"


def test_enrolment_by_command(run, door, state_dir, tmp_path):
    (tmp_path / "token").write_text(door.token() + "\n")
    status, out, _ = run("enroll", f"@{tmp_path / 'token'}", "--device", "porch-1", "--json")
    assert status == 0
    assert json.loads(out) == {"device": "porch-1", "fleet": "plant", "url": door.url}
    assert run("enroll", door.token(secret="used"))[0] == 4
    assert run("enroll", door.token(ca_sha256="0" * 64))[0] == 6
    assert json.loads(run("status", "--json")[1])["device"] == "porch-1"


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = [sys.executable, "-m", "runtime.cli", "config", "show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_help_costs_little(tmp_path):
    program = "import sys, runtime.cli\ntry:\n runtime.cli.main(['--help'])\nexcept SystemExit:\n print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for heavy in ("numpy", "msgspec", "ssl", "sqlite3", "paho", "asyncio", "runtime.commands"):
        assert f"'{heavy}'" not in done.stderr
