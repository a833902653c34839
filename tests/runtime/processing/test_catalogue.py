"""Is every unknown step, option, value and order refused when an artifact is opened, and is every step documented and real?"""

import inspect
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import Processing, Step, TensorSpec
from runtime.errors import ProcessingError, RequestError
from runtime.processing.catalogue import STEPS, check_manifest, check_processing, options_of
from runtime.processing.page import tables
from runtime.processing.pipeline import FUNCTIONS, prepare

PAGE = Path(__file__).parents[3] / "docs" / "runtime" / "processing.md"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step(name="sharpen"), "unknown processing step 'sharpen'; known here: add_channel, argmax"),
        (Step(name="softmax", options={"axis": 1}), "'softmax' has no option 'axis'; it takes none"),
        (Step(name="resize", options={"height": 3}), "'resize' needs the option 'width'"),
        (Step(name="resize", options={"height": 0, "width": 3}), "'height' = 0: expected a number from 1 to 16384"),
        (Step(name="resize", options={"height": True, "width": 3}), "expected a whole number from 1 to 16384"),
        (Step(name="resize", options={"height": 3, "width": 3, "fit": "squeeze"}), "expected one of stretch, cover"),
        (Step(name="resize", options={"height": 3, "width": 3, "antialias": 1}), "expected true or false"),
        (Step(name="normalize", options={"mean": "0", "std": "0"}), "'std' = '0': expected a number of at least 1e-12"),
        (Step(name="normalize", options={"mean": "nan", "std": "1"}), "expected decimals separated by commas"),
        (Step(name="normalize", options={"mean": "1" + ",1" * 1024, "std": "1"}), "expected decimals separated by commas"),
        (Step(name="scale", options={"factor": "1,2"}), "expected a decimal"),
        (Step(name="log", options={"floor": "1e999"}), "expected a decimal"),
        (Step(name="stft", options={"window_size": 8, "hop": 4, "fft_size": 4}), "fft_size must be at least window_size"),
        (Step(name="mel", options={"rate": 8000, "bands": 4, "high_hz": "5000"}), "at most at half the rate"),
        (Step(name="mel", options={"rate": 8000, "bands": 4, "low_hz": "4000"}), "low_hz must lie below high_hz"),
        (Step(name="nms", options={"boxes": ""}), "expected a text of 1 to 200 characters"),
    ],
)
def test_what_cannot_be_done_is_refused(step, message):
    place = "pre" if STEPS.get(step.name) is None or STEPS[step.name].place == "pre" else "post"
    with pytest.raises(ProcessingError, match=re.escape(message)):
        check_processing(Processing(**{place: (step,)}))


@pytest.mark.parametrize(
    ("processing", "message"),
    [
        (Processing(pre=(Step(name="softmax"),)), "'softmax' does not belong into 'pre'"),
        (Processing(post=(Step(name="to_float"),)), "'to_float' does not belong into 'post'; there are argmax, nms"),
        (Processing(post=(Step(name="argmax"), Step(name="softmax"))), "'argmax' must be the last one of 'post'"),
    ],
)
def test_steps_in_the_wrong_place_are_refused(processing, message):
    with pytest.raises(ProcessingError, match=message):
        check_processing(processing)


def test_a_manifest_s_tensors_must_fit_its_steps(make_manifest):
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 3))
    two = make_manifest([tensor, msgspec.structs.replace(tensor, name="z")], [tensor])
    with pytest.raises(ProcessingError, match="models with one input, tiny has 2"):
        check_manifest(msgspec.structs.replace(two, processing=Processing(pre=(Step(name="to_float"),))))
    detector = msgspec.structs.replace(two, processing=Processing(post=(Step(name="nms"),)))
    with pytest.raises(ProcessingError, match="needs the output 'boxes'; the model has x"):
        check_manifest(detector)


def test_examples_become_one_tensor_or_say_which_does_not_fit(make_manifest):
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 3, 4, 5), layout="NCHW")
    pre = (Step(name="resize", options={"height": 4, "width": 5}), Step(name="to_float"), Step(name="channels_first"))
    manifest = msgspec.structs.replace(make_manifest([spec], [spec]), processing=Processing(pre=pre))
    small, large = np.full((2, 2, 3), 255, np.uint8), np.zeros((9, 8, 3), np.uint8)
    tensors = prepare(manifest, [small, large])
    assert (tensors["x"].dtype, tensors["x"].shape) == (np.float32, (2, 3, 4, 5))
    assert (tensors["x"].min(axis=(1, 2, 3)) == [1, 0]).all()
    np.testing.assert_array_equal(prepare(manifest, [large])["x"], tensors["x"][1:])
    with pytest.raises(RequestError, match="raw input 1: expected an image"):
        prepare(manifest, [small, small[0]])
    with pytest.raises(RequestError, match="no raw input"):
        prepare(manifest, [])
    plain = msgspec.structs.replace(manifest, processing=Processing())
    with pytest.raises(RequestError, match=r"raw input 1 becomes \[9, 8, 3\], the first \[2, 2, 3\]"):
        prepare(plain, [small, large])


def test_every_step_has_a_function_that_takes_its_options():
    assert FUNCTIONS.keys() == STEPS.keys()
    for name, definition in STEPS.items():
        assert inspect.getdoc(FUNCTIONS[name]), name
        taken = [p.name for p in inspect.signature(FUNCTIONS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
        # nms is told the names of its outputs; who calls it picks them.
        assert taken == [option.name for option in definition.options if (name, option.kind) != ("nms", "text")], name


def test_defaults_are_values_their_own_options_take():
    for name, definition in STEPS.items():
        for option in definition.options:
            if option.default is not None:
                option.read(option.default)
        if all(option.default is not None for option in definition.options):
            options_of(Step(name=name))


def test_the_page_shows_every_step_and_option_as_they_are():
    text = PAGE.read_text(encoding="utf-8")
    assert tables() in text, "python -m runtime.processing.page prints the tables"
