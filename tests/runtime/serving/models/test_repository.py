"""Does an artifact open only when it is whole, and does a switch under load lose, mix or fail nothing?"""

import threading

import msgspec
import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.contract.artifact import Processing, Step, TensorSpec, read_manifest
from runtime.contract.canonical import write_json
from runtime.contract.errors import ContractError, DigestError, MalformedError
from runtime.errors import (
    DaemonError,
    EngineOptionError,
    EngineUnknownError,
    InferenceError,
    ModelLoadError,
    ModelNotFoundError,
    ProcessingError,
    RetiredError,
)
from runtime.monitor.monitor import Monitor
from runtime.serving.models.health import Health
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository, open_artifact
from tests.runtime.serving.conftest import expected_scores, write_artifact

ROWS = {"input": np.arange(8, dtype=np.float32).reshape(2, 4)}


def change_manifest(directory, **changes):
    manifest = read_manifest((directory / "manifest.json").read_bytes()).value
    (directory / "manifest.json").write_bytes(write_json(msgspec.structs.replace(manifest, **changes)))


def test_an_opened_artifact_names_itself_and_computes(artifact):
    served = open_artifact(artifact)
    raw = read_manifest((artifact / "manifest.json").read_bytes())
    assert (served.artifact.version, served.artifact.target, served.artifact.sha256) == ("1.0.0", "any-cpu", raw.sha256)
    np.testing.assert_allclose(served.infer(ROWS)["output"], expected_scores(ROWS["input"]), rtol=1e-5)
    assert served.monitor.take().rows == 2
    served.retire()


def test_the_warm_up_is_not_counted(artifact):
    served = open_artifact(artifact)
    assert served.monitor.totals().requests == 0
    assert 0 < served.expected_ns(ROWS) < 50_000_000
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
    assert repository.get("tiny", "1.0.0").manifest.version == "1.0.0"
    with pytest.raises(ModelNotFoundError, match=r"serves version 1\.0\.0"):
        repository.infer("tiny", ROWS, "2.0.0")
    with pytest.raises(ModelNotFoundError, match="serving: tiny"):
        repository.infer("other", ROWS)
    assert repository.artifact("other") is None
    assert repository.health("other") == Health()


class Recorder:
    """A model that says when it runs, goes on when told to, and remembers being closed."""

    def __init__(self, inner):
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.running, self.go_on, self.is_closed = threading.Event(), threading.Event(), False
        self._inner = inner

    def infer(self, inputs):
        self.running.set()
        assert self.go_on.wait(10)
        assert not self.is_closed
        return self._inner.infer(inputs)

    def close(self):
        self.is_closed = True


def test_a_retired_model_refuses_ends_what_it_runs_and_then_closes(repository, artifact):
    manifest, held = repository.get("tiny").manifest, repository.artifact("tiny")
    model = Recorder(get_backend("reference").load(artifact / "model.npz", {}))
    served = ServedModel(manifest, held, model, Monitor(manifest))
    repository.switch(served)
    answers = []
    running = threading.Thread(target=lambda: answers.append(served.infer(ROWS)["output"]))
    running.start()
    assert model.running.wait(5)
    assert repository.retire("tiny") is served
    assert repository.retire("tiny") is None
    assert not model.is_closed
    model.go_on.set()
    running.join()
    np.testing.assert_allclose(answers[0], expected_scores(ROWS["input"]), rtol=1e-5)
    assert model.is_closed
    with pytest.raises(RetiredError):
        served.infer(ROWS)
    with pytest.raises(ModelNotFoundError):
        repository.infer("tiny", ROWS)


def test_a_request_that_waited_through_a_switch_runs_on_the_new_version(repository, artifact, tmp_path):
    manifest, held = repository.get("tiny").manifest, repository.artifact("tiny")
    model = Recorder(get_backend("reference").load(artifact / "model.npz", {}))
    repository.switch(ServedModel(manifest, held, model, Monitor(manifest)))
    versions = []
    ask = lambda: versions.append(repository.infer("tiny", ROWS)[0].manifest.version)  # noqa: E731 - two threads do the same
    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert model.running.wait(5)
    threads[1].start()
    repository.switch(repository.open(write_artifact(tmp_path / "newer", version="2.0.0")))
    model.go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(versions) == ["1.0.0", "2.0.0"]
    assert model.is_closed


def test_a_model_retired_behind_the_repository_says_so(repository):
    repository.get("tiny").retire()
    with pytest.raises(RetiredError):
        repository.infer("tiny", ROWS)


def test_switching_to_the_same_artifact_again_keeps_it_open(repository):
    served = repository.get("tiny")
    assert repository.switch(served) is None
    assert repository.infer("tiny", ROWS)[0] is served


def test_a_hundred_switches_under_load_fail_no_request_and_close_every_old_engine(tmp_path):
    """Each version multiplies by its own scale; an answer must be wholly of one version, and none may be an error."""
    directories = [write_artifact(tmp_path / str(scale), version=f"{scale}.0.0", scale=scale) for scale in (1, 2)]
    repository = Repository()
    repository.switch(repository.open(directories[0]))
    stop, failures, answers = threading.Event(), [], [0, 0, 0]

    def ask(index):
        while not stop.is_set():
            try:
                served, outputs = repository.infer("tiny", ROWS)
            except DaemonError as error:
                failures.append(error)
                return
            scale = int(served.manifest.version[0])
            if not np.allclose(outputs["output"], expected_scores(ROWS["input"], scale), rtol=1e-5):
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
        with pytest.raises(RetiredError):
            served.infer(ROWS)
        with pytest.raises(InferenceError, match="closed"):
            served._model.infer(ROWS)
    repository.close()
    assert repository.models() == ()
