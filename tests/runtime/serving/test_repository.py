"""Does an artifact open only when it is whole, and does a switch under load lose, mix or fail nothing?"""

import threading

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import Processing, Step, TensorSpec, read_manifest
from runtime.contract.canonical import write_json
from runtime.contract.errors import ContractError, DigestError, MalformedError
from runtime.errors import DaemonError, EngineOptionError, EngineUnknownError, ModelLoadError, ModelNotFoundError, ProcessingError
from runtime.serving.repository import Repository, open_artifact
from tests.runtime.serving.conftest import expected_scores, write_artifact

ROWS = {"input": np.arange(8, dtype=np.float32).reshape(2, 4)}


def change_manifest(directory, **changes):
    manifest = read_manifest((directory / "manifest.json").read_bytes()).value
    (directory / "manifest.json").write_bytes(write_json(msgspec.structs.replace(manifest, **changes)))


def test_an_opened_artifact_names_itself_and_computes(artifact):
    served = open_artifact(artifact)
    raw = read_manifest((artifact / "manifest.json").read_bytes())
    assert (served.artifact.version, served.artifact.target, served.artifact.sha256) == ("1.0.0", "any-cpu", raw.sha256)
    assert served.acquire()
    np.testing.assert_allclose(served.infer(ROWS)["output"], expected_scores(ROWS["input"]), rtol=1e-5)
    assert served.monitor.take().rows == 2
    served.release()
    served.retire()


def test_the_warm_up_is_not_counted(artifact):
    served = open_artifact(artifact)
    assert served.monitor.totals().requests == 0
    assert 0 < served.expected_ns(1) < 50_000_000
    served.retire()


@pytest.mark.parametrize("name", ["model.npz", "reference.bin"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "flipped"])
def test_damaged_files_are_refused(artifact, name, damage):
    path = artifact / name
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"shorter": raw[:-1], "longer": raw + b"x", "flipped": raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:]}[damage]
        )
    with pytest.raises(DigestError, match=name):
        open_artifact(artifact)


def test_a_missing_or_foreign_manifest_is_refused(artifact, tmp_path):
    with pytest.raises(DigestError):
        open_artifact(tmp_path)
    (artifact / "manifest.json").write_bytes(b"{}")
    with pytest.raises(MalformedError):
        open_artifact(artifact)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"engine_options": {"turbo": True}}, EngineOptionError),
        ({"processing": Processing(post=(Step(name="sharpen"),))}, ProcessingError),
        ({"inputs": (TensorSpec(name="other", datatype="FP32", shape=(-1, 4)),)}, ModelLoadError),
        ({"inputs": (TensorSpec(name="input", datatype="FP64", shape=(-1, 4)),)}, ModelLoadError),
        ({"inputs": (TensorSpec(name="input", datatype="FP32", shape=(-1, 5)),)}, ModelLoadError),
        ({"outputs": (TensorSpec(name="output", datatype="FP32", shape=(-1, 3, 1)),)}, ModelLoadError),
    ],
    ids=["option", "step", "name", "datatype", "shape", "rank"],
)
def test_a_manifest_that_does_not_fit_the_model_is_refused(artifact, changes, error):
    change_manifest(artifact, **changes)
    with pytest.raises((error, MalformedError)):  # another input also makes the reference one of other streams
        open_artifact(artifact)


def test_an_unknown_engine_is_refused(artifact):
    requires = read_manifest((artifact / "manifest.json").read_bytes()).value.requires
    change_manifest(artifact, requires=msgspec.structs.replace(requires, engine="tflite"))
    with pytest.raises(EngineUnknownError):
        open_artifact(artifact)


def test_a_manifest_may_fix_what_the_model_leaves_free(artifact):
    change_manifest(artifact, inputs=(TensorSpec(name="input", datatype="FP32", shape=(1, 4), labels=("a", "b", "c", "d")),))
    served = open_artifact(artifact)
    with pytest.raises(DaemonError, match=r"\[1, 4\]"):
        served.check(ROWS)
    served.retire()


def test_every_single_byte_of_the_manifest_matters_or_is_refused(artifact):
    """Whoever holds the digest compares it; here a flip must never crash, and never pass for the same artifact."""
    path = artifact / "manifest.json"
    raw = path.read_bytes()
    same = read_manifest(raw).sha256
    for index in range(0, len(raw), 7):
        path.write_bytes(raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :])
        try:
            served = open_artifact(artifact)
        except (DaemonError, ContractError):
            continue
        assert served.artifact.sha256 != same
        served.retire()


def test_versions_and_unknown_models(repository):
    assert repository.acquire("tiny", "1.0.0").manifest.version == "1.0.0"
    with pytest.raises(ModelNotFoundError, match=r"serves version 1\.0\.0"):
        repository.acquire("tiny", "2.0.0")
    with pytest.raises(ModelNotFoundError, match="serving: tiny"):
        repository.acquire("other")
    assert repository.artifact("other") is None
    assert repository.counts("other") == (0, 0)


def test_retiring_a_model_stops_it_and_closes_it_when_unused(repository):
    served = repository.acquire("tiny")
    assert repository.retire("tiny") is served
    assert repository.retire("tiny") is None
    with pytest.raises(ModelNotFoundError):
        repository.acquire("tiny")
    served.infer(ROWS)
    served.release()
    with pytest.raises(DaemonError, match="closed"):
        served.infer(ROWS)


def test_switching_to_the_same_artifact_again_keeps_it_open(repository):
    served = repository.get("tiny")
    assert repository.switch(served) is None
    assert repository.acquire("tiny") is served
    served.infer(ROWS)


def test_a_hundred_switches_under_load_fail_no_request_and_close_every_old_engine(tmp_path):
    """Each version multiplies by its own scale; an answer must be wholly of one version, and none may be an error."""
    directories = [write_artifact(tmp_path / str(scale), version=f"{scale}.0.0", scale=scale) for scale in (1, 2)]
    repository = Repository()
    repository.switch(repository.open(directories[0]))
    stop, failures, answers = threading.Event(), [], [0, 0, 0]

    def ask(index):
        while not stop.is_set():
            served = repository.acquire("tiny")
            try:
                outputs = served.infer(ROWS)["output"]
            except DaemonError as error:
                failures.append(error)
                return
            finally:
                served.release()
            scale = int(served.manifest.version[0])
            if not np.allclose(outputs, expected_scores(ROWS["input"], scale), rtol=1e-5):
                failures.append(served.manifest.version)
            answers[index] += 1

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    old = [repository.switch(repository.open(directories[round_ % 2])) for round_ in range(1, 101)]
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert min(answers) > 0
    for served in old:
        assert not served.acquire()
        with pytest.raises(DaemonError, match="closed"):
            served.infer(ROWS)
    repository.close()
    assert repository.models() == ()
