"""Do the recipe's steps prepare what a source returns, example by example, and name the one that does not fit?"""

from pathlib import Path

import numpy as np
import pytest

from runtime.contract.artifact import Step
from toolchain.data.load import load_data
from toolchain.data.processed import processed
from toolchain.errors import DataError, RecipeError
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Runner
from toolchain.recipe import load_recipe, parse_recipe, processing_of

STEPS = (Step(name="to_float"), Step(name="fit_length", options={"length": 3}))
MODEL = {"model": {"name": "m", "version": "1.0.0", "network": "a.py:b"}, "data": {"source": "a.py:c"}}


def splits(train):
    return {"train": (train, [1, 2]), "validation": (train, [1, 2]), "test": (train, [1, 2]), "layout": "NC"}


def test_a_generator_of_sounds_of_any_length_becomes_one_array():
    sounds = [np.array([32767, -32768], np.int16), np.array([0.5, 0.25, 0, 1], np.float32)]
    result = processed({**splits(sounds), "train": ((sound for sound in sounds), [1, 2])}, STEPS)
    inputs, targets = result["train"]
    assert (inputs.dtype, targets) == (np.float32, [1, 2])
    np.testing.assert_allclose(inputs, [[1, -1, 0], [0.5, 0.25, 0]], atol=1e-4)
    np.testing.assert_array_equal(result["test"][0], inputs)
    assert result["layout"] == "NC"
    named = processed(splits({"sound": sounds}), STEPS)
    np.testing.assert_array_equal(named["train"][0]["sound"], inputs)


def test_without_steps_what_came_is_what_goes():
    result = splits([1, 2])
    assert processed(result, ()) is result
    assert processed("nothing of the sort", STEPS) == "nothing of the sort"


@pytest.mark.parametrize(
    ("train", "steps", "message"),
    [
        ([np.zeros(3), np.zeros((2, 2))], STEPS, r"split 'train', row 1: expected the samples of one sound"),
        ([np.zeros(3), np.zeros(2)], STEPS[:1], r"split 'train', row 1: the steps make \[2\] of it, of the first \[3\]"),
        ([], STEPS, "split 'train' is empty"),
        ({"a": [], "b": []}, STEPS, "models with one input; split 'train' has a, b"),
    ],
)
def test_what_does_not_fit_is_named(train, steps, message):
    with pytest.raises(DataError, match=message):
        processed(splits(train), steps)


def test_files_opened_as_examples_are_asked_for_are_watched(tmp_path: Path):
    """A changed file runs the source again, though the source itself had returned before it was opened."""
    (tmp_path / "own.py").write_text(
        "import pathlib, numpy as np\n"
        "def read():\n"
        "    yield from (np.load(f) for f in sorted(pathlib.Path(__file__).parent.glob('*.npy')))\n"
        "def splits():\n"
        "    return {name: (read(), np.array([0, 1])) for name in ('train', 'validation', 'test')}\n"
    )
    (tmp_path / "recipe.toml").write_text(
        "[model]\nname='m'\nversion='1.0.0'\nnetwork='own.py:network'\n[data]\nsource='own.py:splits'\n"
        "[processing]\npre=[{name='scale', factor=0.5}]\n"
    )
    for index in range(2):
        np.save(tmp_path / f"{index}.npy", np.array([index, 2.0], np.float32))

    def load(*settings):
        stored = load_data(
            Runner(StageCache(tmp_path / "cache"), Silent(), "m"), load_recipe(tmp_path / "recipe.toml", settings), tmp_path
        )
        return stored.digest, np.load(stored.folder / stored.value.steering.train.inputs[0]).tolist()

    first = load()
    assert first[1] == [[0, 1], [0.5, 1]]
    assert load() == first
    assert load("processing.pre.0.factor=2")[1] == [[0, 4], [2, 4]]
    np.save(tmp_path / "1.npy", np.array([9.0, 2.0], np.float32))
    assert load()[1] == [[0, 1], [4.5, 1]]


def test_a_recipe_s_fractions_become_texts_and_a_classifier_s_logits_probabilities():
    pre = [{"name": "normalize", "mean": [0.485, 1], "std": [0.1, 1e-6]}, {"name": "fit_length", "length": 3}]
    processing = processing_of(parse_recipe({**MODEL, "processing": {"pre": pre}}, "r.toml"))
    assert processing.pre[0].options == {"mean": "0.485,1", "std": "0.1,1e-06"}
    assert processing.pre[1].options == {"length": 3}
    assert [step.name for step in processing.post] == ["softmax"]
    assert processing_of(parse_recipe({**MODEL, "processing": {"post": []}}, "r.toml")).post == ()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"pre": [{"name": "sharpen"}]}, r"r\.toml: processing\.pre\[0\]: unknown processing step 'sharpen'"),
        (
            {"post": [{"name": "softmax"}, {"name": "top_k", "k": 0}]},
            r"processing\.post\[1\]: .*'k' = 0: expected a number from 1",
        ),
        ({"pre": [{"height": 3}]}, r"processing\.pre\[0\]: expected { name = \"STEP\""),
        ({"pre": [{"name": "softmax"}]}, r"processing: .*'softmax' does not belong into 'pre'"),
        ({"before": []}, r"processing\.before: unknown key; "),
    ],
)
def test_a_recipe_s_mistakes_are_found_at_the_door(section, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**MODEL, "processing": section}, "r.toml")
