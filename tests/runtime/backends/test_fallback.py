"""Does each artifact run in the first of its engines that can, and is what was passed over always said?"""

import msgspec
import pytest

from runtime.backends.base import Availability
from runtime.backends.fallback import expected_engine, open_engine
from runtime.contract.artifact import EngineRange, Fallback, Requirements, read_manifest
from runtime.errors import (
    EngineCrashedError,
    EngineError,
    EngineMissingError,
    EngineUnknownError,
    ModelLoadError,
    UnsuitableError,
)
from runtime.serving.describe import model_config, model_metadata
from runtime.serving.models.repository import Repository
from runtime.update.verify import require_suitable
from tests.support.artifacts import PROFILE, write_artifact

ANY = EngineRange(at_least="0", below="9999")
HERE = EngineRange(at_least="1", below="2")


def choice(engine, span=ANY, **options):
    return Fallback(engine=engine, engine_range=span, engine_options=options)


@pytest.fixture
def artifact(tmp_path):
    """Make an artifact for the first of these engines, with the rest to fall back to. Its file is the reference engine's."""

    def make(first, *others):
        write_artifact(
            tmp_path / "artifact",
            requires=Requirements(profile="test-cpu", arch="x86_64", engine=first.engine, engine_range=first.engine_range),
            engine_options=first.engine_options,
            fallbacks=others,
        )
        return tmp_path / "artifact", read_manifest((tmp_path / "artifact" / "manifest.json").read_bytes()).value

    return make


@pytest.mark.parametrize(
    ("choices", "takes", "passed_over"),
    [
        ([choice("reference", HERE)], "reference", ""),
        ([choice("reference", HERE), choice("onnxruntime")], "reference", ""),
        ([choice("nonesuch"), choice("reference", HERE)], "reference", "unknown engine 'nonesuch'"),
        ([choice("onnxruntime"), choice("reference", HERE)], "reference", "onnxruntime cannot open model.npz"),
        ([choice("reference", HERE, threads=7), choice("reference", HERE)], "reference", "cannot honour its options"),
        ([choice("onnxruntime", EngineRange(at_least="0", below="0.1")), choice("reference", HERE)], "reference", ""),
        ([choice("reference", EngineRange(at_least="3", below="4")), choice("onnxruntime")], "reference", "cannot open model.npz"),
        ([choice("reference", EngineRange(at_least="3", below="4"))], "reference", ""),
    ],
    ids=[
        "the first", "the first of two", "unknown", "cannot open it", "cannot honour an option", "another version is asked last",
        "another version is better than nothing", "another version alone",
    ],
)  # fmt: skip
def test_the_first_that_can_serves(artifact, caplog, choices, takes, passed_over):
    directory, manifest = artifact(*choices)
    with caplog.at_level("WARNING", logger="runtime.backends.fallback"):
        opened = open_engine(manifest, directory)
    opened.model.close()
    assert opened.engine.name == takes
    assert passed_over in opened.engine.passed_over
    assert bool(opened.engine.passed_over) is bool(passed_over)
    assert bool(caplog.records) is (bool(passed_over) or any(one.engine_range.at_least == "3" for one in choices))


def test_no_engine_at_all_names_what_each_lacks(artifact):
    directory, manifest = artifact(choice("onnxruntime"), choice("nonesuch"))
    with pytest.raises(EngineError, match=r"onnxruntime cannot open .*nonesuch"):
        open_engine(manifest, directory)


@pytest.mark.parametrize(("engine", "error"), [("nonesuch", EngineUnknownError), ("onnxruntime", ModelLoadError)])
def test_the_only_engine_s_own_error_is_raised(artifact, engine, error):
    directory, manifest = artifact(choice(engine))
    with pytest.raises(error):
        open_engine(manifest, directory)


def test_a_crash_is_the_model_s_and_no_other_engine_is_tried(artifact):
    directory, manifest = artifact(choice("reference"), choice("onnxruntime"))
    tried = []

    def load(engine, _model, _options):
        tried.append(engine)
        raise EngineCrashedError("as if")

    with pytest.raises(EngineCrashedError):
        open_engine(manifest, directory, load)
    assert tried == ["reference"]


def test_what_is_expected_is_told_without_opening(artifact, monkeypatch):
    from runtime.backends.onnxruntime import OnnxRuntimeBackend

    _, manifest = artifact(choice("onnxruntime"), choice("reference", HERE))
    assert expected_engine(manifest).name == "onnxruntime"
    monkeypatch.setattr(OnnxRuntimeBackend, "probe", lambda _self: Availability(ok=False, reason="as if it were missing"))
    assert str(expected_engine(manifest)) == "reference 1.0.0 instead of onnxruntime (as if it were missing)"
    with pytest.raises(EngineMissingError, match="as if it were missing"):
        expected_engine(msgspec.structs.replace(manifest, fallbacks=()))


@pytest.mark.parametrize(("engines", "fits"), [({"reference": "1.5"}, True), ({"reference": "2.0"}, False), ({}, False)])
def test_a_device_with_only_a_fallback_is_suitable(artifact, engines, fits):
    _, manifest = artifact(choice("tensorrt"), choice("reference", HERE))
    profile = msgspec.structs.replace(PROFILE, engines=engines)
    if fits:
        require_suitable(manifest, profile)
    else:
        with pytest.raises(UnsuitableError, match=r"tensorrt.*reference"):
            require_suitable(manifest, profile)


def test_clients_are_told_which_engine_serves(artifact):
    directory, _ = artifact(choice("onnxruntime"), choice("reference", HERE))
    repository = Repository()
    repository.switch(repository.open(directory))
    assert model_metadata(repository, "tiny")["platform"] == "reference_npz"
    config = model_config(repository, "tiny")
    assert config["backend"] == "reference"
    assert "onnxruntime cannot open" in config["parameters"]["engine_instead_of"]["string_value"]
    repository.close()
