"""Which variants does a recipe lead to, and what happens where one cannot be made or loses too much?"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolchain.conftest import Project
from toolchain.errors import StageError


def test_a_scheme_a_model_cannot_take_is_left_out_aloud_once(
    make_project: Callable[[str], Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees have no matrices to quantize and OpenVINO has no trees: the float model ships, and the report says what was tried."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    project = make_project("sklearn_start")
    everything = ('compress.methods=["quantize"]', 'target.engines=["onnxruntime", "openvino"]')
    result = project.build(*everything)
    assert result.targets[0].chosen == "onnxruntime-float32"
    left_out = [note for note in result.notes if "is left out" in note]
    assert any(note.startswith("openvino-float32 is left out: OpenVINO cannot convert the model") for note in left_out)
    assert any(note.startswith("onnxruntime-int8-7bit is left out: ") for note in left_out)
    again = project.build(*everything)
    assert not again.ran, "what cannot be made is known the next time"
    assert again.notes == result.notes
    assert not list((tmp_path / "here").iterdir()), "nothing is left where the build was started"


def test_a_scheme_the_recipe_names_must_be_made(make_project: Callable[[str], Project]) -> None:
    with pytest.raises(StageError, match=r"compress\.schemes: onnxruntime-int8-7bit cannot be made"):
        make_project("sklearn_start").build('compress.schemes=["onnxruntime-int8"]')


def test_a_form_that_misses_the_limit_gets_no_compressed_variant(make_project: Callable[[str], Project]) -> None:
    """Nine tenths of the channels gone, and no time to recover: only its float model is told of, rejected."""
    result = make_project("breast_cancer").build(
        "train.epochs=6", "compress.finetune_epochs=1", "compress.prune_ratios=[0.9]", 'compress.methods=["prune", "quantize"]',
        'target.engines=["onnxruntime"]', "metric.max_drop=0.0001",
    )  # fmt: skip
    variants = {each.name: each for each in result.targets[0].variants}
    pruned = [name for name in variants if name.startswith("pruned90")]
    assert pruned == ["pruned90-onnxruntime-float32"]
    assert variants[pruned[0]].verdict == "rejected"
    (form,) = [each for each in result.forms if each.name == "pruned90"]
    assert not form.kept
    assert form.reason == "its float model misses the metric's limit"
