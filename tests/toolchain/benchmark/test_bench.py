"""Does `toolchain bench` run its scenarios on a real artifact: by our generator, by MLPerf's, and through ssh?

The ssh here is a stand-in on PATH: a script that runs the remote command in a local shell, as sshd would, or fails as ssh does.
"""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from tests.toolchain.conftest import Run
from toolchain.benchmark import loadgen
from toolchain.benchmark.remote import parcel
from toolchain.package.read import Artifact

PATH = "/usr/bin:/bin"


@pytest.mark.parametrize(
    ("scenario", "metric", "shown"),
    [
        ("single", "p90_ns", "90 % within"),
        ("multi", "p99_ns", "99 % within"),
        ("server", "qps", "queries/s"),
        ("offline", "samples_per_s", "examples/s"),
    ],
)
def test_each_scenario_runs_on_an_artifact(run: Run, artifact: Artifact, scenario: str, metric: str, shown: str) -> None:
    arguments = ("bench", artifact.path, "--scenario", scenario, "--duration", 0.2)
    ended = run(*arguments, "--json")
    assert ended.status == 0, ended.err
    (found,) = json.loads(ended.out)
    assert (found["scenario"], found["figures"]["metric"]) == (scenario, metric)
    assert found["figures"][metric] > 0
    assert shown in run(*arguments).out


@pytest.mark.parametrize("scenario", ["single", "multi", "server", "offline"])
def test_the_real_loadgen_runs_over_an_artifact(run: Run, artifact: Artifact, scenario: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="the extra loadgen is not installed")
    rate = ("--rate", 200) if scenario == "server" else ()
    ended = run("bench", artifact.path, "--scenario", scenario, "--loadgen", "--duration", 0.3, *rate, "--json")
    assert ended.status == 0, ended.err
    (found,) = json.loads(ended.out)
    assert found["summary"]["Scenario"] == loadgen._NAMES[scenario]
    assert found["summary"]["Result is"] in ("VALID", "INVALID")
    assert found["valid"] == (found["summary"]["Result is"] == "VALID")


def test_a_model_that_fails_under_loadgen_ends_the_run_and_not_the_process(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlperf_loadgen", reason="the extra loadgen is not installed")
    from toolchain.benchmark.artifacts import Load
    from toolchain.errors import StageError

    def broken(infer: object, count: int) -> None:
        raise ValueError("no answer")

    monkeypatch.setattr(loadgen, "_infer_all", broken)
    with pytest.raises(StageError, match="failed under LoadGen: no answer"):
        loadgen.run_loadgen(artifact, Load(scenario="offline", duration_s=0.1), None)


def test_a_missing_loadgen_ends_with_its_install_line(run: Run, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    ended = run("bench", artifact.path, "--scenario", "single", "--loadgen")
    assert ended.status == 5
    assert 'pip install "edgewright[loadgen]"' in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loadgen",), "--scenario"),
        (("--loadgen", "--scenario", "single", "--on", "pi"), "this machine only"),
        (("--scenario", "server", "--rate", "5"), "--loadgen"),
        (("--on", "-oProxyCommand=x"), "expected HOST"),
    ],
)
def test_flags_that_make_no_sense_together_are_usage_errors(
    run: Run, artifact: Artifact, arguments: tuple[str, ...], message: str
) -> None:
    ended = run("bench", artifact.path, *arguments)
    assert ended.status == 2
    assert message in ended.err


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ssh: checks its options, notes the host, and runs the last argument in a shell with a bare environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1 $2 $3 $4 $5" = "-o BatchMode=yes -o ConnectTimeout=10 --" ] || exit 64\necho "$6" >{tmp_path}/host\n'
        f'exec env -i PATH={PATH} TMPDIR={tmp_path} /bin/sh -c "$7"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{PATH}")
    return tmp_path


def test_through_a_stand_in_ssh_the_artifact_is_measured_there_and_nothing_stays(run: Run, artifact: Artifact, ssh: Path) -> None:
    ended = run("bench", artifact.path, artifact.path, "--on", "pi@shelf", "--python", sys.executable, "--blocks", 4, "--json")
    assert ended.status == 0, ended.err
    first, second = json.loads(ended.out)
    assert (ssh / "host").read_text() == "pi@shelf\n"
    assert first["latency"]["ratio"] == 1.0
    assert second["latency"]["p50_ns"] > 0
    assert first["conditions"]["load before"]
    assert not list(ssh.glob("tmp.*"))


def test_a_scenario_through_a_stand_in_ssh(run: Run, artifact: Artifact, ssh: Path) -> None:
    ended = run(
        "bench", artifact.path, "--on", "shelf", "--python", sys.executable, "--scenario", "offline", "--duration", 0.1, "--json"
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)[0]["figures"]["samples_per_s"] > 0


def test_what_is_sent_needs_runtime_and_numpy_alone(artifact: Artifact, tmp_path: Path) -> None:
    """A device has no msgspec recipe, no torch, no toolchain: its modules may not be imported there."""
    import io
    import subprocess
    import tarfile

    request = {"threads": None, "blocks": 4, "scenario": None, "duration_s": 0.1, "bound_ns": None}
    with tarfile.open(fileobj=io.BytesIO(parcel([artifact], request))) as tar:
        tar.extractall(tmp_path, filter="data")
    code = (
        "import io, json, sys\n"
        "from toolchain.benchmark import device\n"
        "answer = device.answer(json.load(open('request.json')), lambda *_: None)\n"
        "ours = sorted(name for name in sys.modules if name.startswith('toolchain'))\n"
        "print(json.dumps([ours, answer[0]['figures']['samples'], [n for n in ('typer', 'pydantic', 'torch', 'onnx') if n in sys.modules]]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    ours, samples, heavy = json.loads(ended.stdout)
    assert ours == [
        "toolchain",
        "toolchain.benchmark",
        *(f"toolchain.benchmark.{name}" for name in ("device", "machine", "scenarios", "timing")),
    ]
    assert samples > 0
    assert heavy == []


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("echo 'ssh: connect to host pi port 22: Connection refused' >&2; exit 255", 4, "Connection refused"),
        ("cat >/dev/null; echo 'sh: 1: python3: not found' >&2; exit 127", 5, "--python"),
        ("cat >/dev/null; echo \"ModuleNotFoundError: No module named 'runtime'\" >&2; exit 1", 5, "pip install"),
        ("cat >/dev/null; echo welcome", 4, "no JSON"),
        ("cat >/dev/null; echo 'openvino is not here' >&2; exit 4", 4, "openvino is not here"),
    ],
)
def test_failures_of_a_stand_in_ssh_are_one_line(
    run: Run, artifact: Artifact, ssh: Path, script: str, status: int, message: str
) -> None:
    (ssh / "bin" / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    ended = run("bench", artifact.path, "--on", "pi")
    assert ended.status == status
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_no_ssh_at_all_says_how_to_get_it(run: Run, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = run("bench", artifact.path, "--on", "pi")
    assert ended.status == 5
    assert "openssh-client" in ended.err


def test_a_fixed_batch_is_measured_as_it_is(artifact: Artifact) -> None:
    """A model that takes four at a time answers eight with two inferences."""
    from contextlib import ExitStack

    from toolchain.benchmark.device import Opened

    opened = Opened(artifact.path, None)
    first = opened.manifest.inputs[0]
    opened.manifest = msgspec.structs.replace(
        opened.manifest, inputs=(msgspec.structs.replace(first, shape=(4, *first.shape[1:])),)
    )
    opened.batch, opened.free = 4, False
    with ExitStack() as stack:
        assert opened.infer(stack)(8) is None
