"""What does the daemon make of a helper that refuses, fails, crashes, hangs or eats memory?"""

import subprocess
import sys
import textwrap

import msgspec
import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError
from runtime.errors import ConfigError, HelperTimeoutError, MemoryShortError, SelfTestError, UpdateError
from runtime.update import delegate as module
from runtime.update.delegate import delegate, error_of
from runtime.update.requests import EXIT_FAILED, EXIT_REFUSED, AcceptRequest, FetchRequest, Task, TestRequest, VerifyRequest
from tests.support.artifacts import PROFILE, write_artifact
from tests.support.store import ReleaseStore

REQUEST = TestRequest(directory="/nowhere")


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Put a program of the test's own in the helper's place."""

    def install(program):
        script = tmp_path / "helper"
        script.write_text(f"#!{sys.executable}\n" + textwrap.dedent(program))
        script.chmod(0o755)
        monkeypatch.setattr(module.sys, "executable", str(script))

    return install


def test_a_passing_self_test_brings_its_figures(tmp_path):
    write_artifact(tmp_path / "artifact")
    reply = delegate(Task.TEST, TestRequest(directory=str(tmp_path / "artifact"), memory_bytes=1 << 30), 60)
    assert reply.figures["rows"] == 16


def test_a_failing_self_test_raises_here_what_it_raised_there(tmp_path):
    write_artifact(tmp_path / "artifact", golden_scale=3.0)
    with pytest.raises(SelfTestError, match="off by up to"):
        delegate(Task.TEST, TestRequest(directory=str(tmp_path / "artifact")), 60)


def test_a_model_over_the_memory_cap_fails_its_self_test(tmp_path):
    write_artifact(tmp_path / "artifact")
    with pytest.raises(MemoryShortError, match=str(8 << 20)):
        delegate(Task.TEST, TestRequest(directory=str(tmp_path / "artifact"), memory_bytes=8 << 20), 60)


def test_without_an_identity_nothing_is_accepted(tmp_path):
    with pytest.raises(ConfigError, match="no fleet"):
        delegate(Task.ACCEPT, AcceptRequest(state_dir=str(tmp_path), kind="desired", envelope=b""), 60)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import sys; print('boom', file=sys.stderr); sys.exit(1)", "exit status 1: boom"),
        ("import sys; sys.stdin.readline(); print('no json')", "unreadable"),
        ("import sys; sys.stdin.readline()", "unreadable"),
    ],
)
def test_a_crash_is_told_with_its_cause(helper, program, words):
    helper(program)
    with pytest.raises(SelfTestError, match=words):
        delegate(Task.TEST, REQUEST, 30)
    with pytest.raises(UpdateError, match=words):
        delegate(Task.VERIFY, REQUEST, 30)


def test_a_hang_is_ended_and_told(helper):
    helper("import time; time.sleep(60)")
    with pytest.raises(SelfTestError, match=r"no answer within 0\.5 s"):
        delegate(Task.TEST, REQUEST, 0.5)
    with pytest.raises(HelperTimeoutError):
        delegate(Task.FETCH, REQUEST, 0.5)


def test_a_helper_ends_when_its_daemon_does():
    """The end of stdin is all a helper sees of it."""
    program = "import threading, time; from runtime.update import helper; threading.Thread(target=helper._end_with_the_daemon).start(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as orphan:
        assert orphan.stdin is not None
        orphan.stdin.close()
        assert orphan.wait(30) == EXIT_FAILED


@pytest.mark.parametrize(
    ("code", "error"), [("trust.digest_mismatch", DigestError), ("config.invalid", ConfigError), ("from.the.future", UpdateError)]
)
def test_codes_become_errors_again(code, error):
    assert error_of(code) is error


@pytest.mark.parametrize(("damage", "status", "code"), [(False, 0, ""), (True, EXIT_REFUSED, "trust.digest_mismatch")])
def test_the_helpers_status_and_line_are_what_scripts_can_rely_on(tmp_path, damage, status, code):
    ref = write_artifact(tmp_path / "artifact")
    if damage:
        (tmp_path / "artifact" / "card.md").write_bytes(b"# tinY\n")
    request = VerifyRequest(directory=str(tmp_path / "artifact"), model="tiny", artifact=ref, floor="0.0.0", profile=PROFILE)
    found, out, err = module._run(Task.VERIFY, msgspec.json.encode(request) + b"\n", 60)
    (line,) = out.splitlines()
    assert (found, msgspec.json.decode(line)["code"], err) == (status, code, b"")


def test_what_a_fetch_says_goes_to_the_log_line_by_line_while_it_runs(helper, caplog):
    helper("""
        import sys, time
        print("blob 1a2b…: 1.0 of 2.0 MB", file=sys.stderr, flush=True)
        time.sleep(60)
    """)
    caplog.set_level("INFO")
    with pytest.raises(HelperTimeoutError):
        delegate(Task.FETCH, REQUEST, 0.5)
    assert "blob 1a2b…: 1.0 of 2.0 MB" in caplog.messages


def test_what_an_engine_says_in_a_self_test_does_not(helper, caplog):
    helper("""
        import sys
        print("W: this CPU is old\\n" * 1000, file=sys.stderr)
        sys.exit(1)
    """)
    caplog.set_level("INFO")
    with pytest.raises(SelfTestError, match="this CPU is old"):
        delegate(Task.TEST, REQUEST, 10)
    assert caplog.messages == []


def test_a_disk_that_fails_is_one_plain_line(tmp_path):
    """The helper's own report, not a crash of it: here the folder of blobs is gone."""
    releases = ReleaseStore()
    write_artifact(tmp_path / "artifact")
    artifact = releases.publish(tmp_path / "artifact")
    place = tmp_path / "identity"
    place.mkdir()
    (place / "root.json").write_bytes(releases.root)
    (place / "identity.json").write_bytes(msgspec.json.encode({"root_sha256": sha256_hex(releases.root)}))
    bundle = str(releases.write_bundle(tmp_path / "release.edge"))
    fields = {"state_dir": str(tmp_path), "model": "tiny", "artifact": artifact, "floor": "0.0.0", "profile": PROFILE}
    with pytest.raises(UpdateError, match=r"fetch: .* No such file or directory") as raised:
        delegate(Task.FETCH, FetchRequest(**fields, reserve_bytes=0, source=bundle), 60)
    assert type(raised.value) is UpdateError
    assert "exit status" not in str(raised.value)
