"""Is bad data refused with the split, the row and the reason?"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolchain.data.arrays import read_split
from toolchain.data.splits import prepare
from toolchain.errors import DataError

Result = dict[str, Any]


def good() -> Result:
    generator = np.random.default_rng(0)
    return {
        name: (generator.normal(size=(rows, 3)).astype(np.float32), np.arange(rows) % 2)
        for name, rows in (("train", 8), ("validation", 6), ("test", 4))
    }


def with_value(value: float) -> Result:
    result = good()
    result["validation"][0][2, 1] = value
    return result


def with_label(label: int) -> Result:
    return good() | {"test": (good()["test"][0], np.array([0, 1, label, 0])), "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned NoneType; expected a dict"),
        ({"train": good()["train"]}, "returned no 'validation' split"),
        (good() | {"validaton": 1}, "unknown key 'validaton'; nearest is validation"),
        (good() | {"test": [1, 2, 3]}, "split 'test' is not a pair"),
        (with_value(np.nan), r"split 'validation', input 'input': NaN at row 2\[1\]; 1 rows"),
        (with_value(np.inf), "infinity at row 2"),
        (good() | {"test": (np.empty((0, 3)), np.empty(0, int))}, "split 'test' is empty"),
        (good() | {"test": (np.ones((4, 3)), np.zeros(3, int))}, "split 'test' has 4 rows of 'input' but 3 targets"),
        (
            good() | {"test": (np.ones((4, 2)), np.zeros(4, int))},
            r"split 'test': rows of 'input' are float32\[2\], in train float32\[3\]",
        ),
        (good() | {"test": (np.ones((4, 3), np.int64), np.zeros(4, int))}, r"split 'test': rows of 'input' are int64\[3\]"),
        (good() | {"test": (np.array([["a"] * 3] * 4), np.zeros(4, int))}, "dtype <U1 cannot be fed to a model"),
        (good() | {"test": ([[1, 2, 3], [1, 2]], np.zeros(2, int))}, "rows differ in shape"),
        (good() | {"test": (np.ones((4, 3)), np.zeros(4))}, "classes are integers"),
        (with_label(2), r"split 'test': label 2 at row 2 is outside 0\.\.1"),
        (with_label(-1), r"split 'test': label -1 at row 2 is outside 0\.\.1"),
        (good() | {"train": (np.ones((8, 3), np.float32), np.ones(8, int))}, r"split 'train' holds one class only \(1\)"),
        (good() | {"features": ["a", "b"]}, "2 feature names for 3 columns"),
        (good() | {"layout": "NCHW"}, "layout 'NCHW' names 4 axes, input 'input' has 2"),
        (good() | {"test": (np.float32(1), np.zeros(1, int))}, "a single value where an array"),
        (good() | {"test": ({}, np.zeros(1, int))}, "has no input array"),
        (good() | {"test": ({"other": np.ones((4, 3))}, np.zeros(4, int))}, "has inputs \\['other'\\], train has \\['input'\\]"),
    ],
)
def test_bad_data_is_refused(tmp_path: Path, result: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare(result, "classification", tmp_path)
    assert caught.value.exit_status == 4
    assert not list(tmp_path.iterdir())


def test_good_data_is_kept_as_it_came(tmp_path: Path) -> None:
    result = good() | {"classes": ["a", "b"], "features": ["x", "y", "z"], "range": (-9, 9)}
    splits = prepare(result, "classification", tmp_path)
    for name, split in (
        ("train", splits.steering.train),
        ("validation", splits.steering.validation),
        ("test", splits.held_out.test),
    ):
        (inputs,), targets = read_split(tmp_path, split)
        assert np.array_equal(inputs, result[name][0])
        assert np.array_equal(targets, result[name][1])
    spec = splits.steering.inputs[0]
    assert (spec.name, spec.datatype, spec.shape, spec.labels) == ("input", "FP32", (-1, 3), ("x", "y", "z"))
    assert splits.steering.classes == ("a", "b")
    assert splits.class_counts["train"] == (4, 4)
    assert splits.notes == ()


def test_digests_of_the_two_halves_are_independent(tmp_path: Path) -> None:
    before = prepare(good(), "classification", tmp_path)
    other_test = good()
    other_test["test"][1][0] ^= 1
    changed = prepare(other_test, "classification", tmp_path)
    assert changed.steering.digest == before.steering.digest
    assert changed.held_out.digest != before.held_out.digest
    assert changed.fingerprint != before.fingerprint
    other_train = good()
    other_train["train"][0][0, 0] += 1
    changed = prepare(other_train, "classification", tmp_path)
    assert changed.steering.digest != before.steering.digest
    assert changed.held_out.digest == before.held_out.digest


def test_slices_of_the_test_split_are_kept_as_text(tmp_path: Path) -> None:
    columns = {"site": {"test": np.array(["oslo", "rome", "oslo", "rome"])}, "hour": {"test": [3, 4, 3, 3]}}
    splits = prepare(good() | {"slices": columns}, "classification", tmp_path)
    kept = {column.name: np.load(tmp_path / column.file).tolist() for column in splits.held_out.slices}
    assert kept == {"hour": ["3", "4", "3", "3"], "site": ["oslo", "rome", "oslo", "rome"]}


def test_slices_belong_to_the_held_out_half_alone(tmp_path: Path) -> None:
    plain = prepare(good(), "classification", tmp_path)
    sliced = prepare(good() | {"slices": {"site": {"test": ["a", "b", "a", "b"]}}}, "classification", tmp_path)
    assert sliced.steering.digest == plain.steering.digest
    assert sliced.held_out.digest != plain.held_out.digest


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (["a"], "'slices' is list; expected {name"),
        ({"site": ["a"] * 4}, "slice 'site': expected {'test': values}"),
        ({"site": {"test": ["a"] * 4, "train": ["a"] * 8}}, "slice 'site': expected {'test': values}"),
        ({"site": {"test": ["a"] * 3}}, "slice 'site' has 3 values for 4 test rows"),
        ({"age": {"test": [0.5] * 4}}, "slice 'age': values are float64.* named ranges first"),
        ({"site": {"test": [["a"]] * 4}}, r"slice 'site': values are <U1\[4, 1\]"),
    ],
)
def test_slices_that_do_not_fit_are_refused(tmp_path: Path, slices: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(good() | {"slices": slices}, "classification", tmp_path)
    assert not list(tmp_path.iterdir())


def test_several_inputs_keep_their_names_and_order(tmp_path: Path) -> None:
    result = {
        name: ({"b": np.ones((n, 2), np.float32), "a": np.ones((n, 3), np.int64)}, np.arange(n) % 2)
        for name, n in (("train", 4), ("validation", 3), ("test", 2))
    }
    splits = prepare(result, "classification", tmp_path)
    assert [(spec.name, spec.datatype) for spec in splits.steering.inputs] == [("b", "FP32"), ("a", "INT64")]


def test_regression_targets_are_numbers(tmp_path: Path) -> None:
    result = {name: (array, labels.astype(np.float64)) for name, (array, labels) in good().items()}
    splits = prepare(result, "regression", tmp_path)
    assert splits.steering.classes == ()
    result["train"][1][3] = np.nan
    with pytest.raises(DataError, match="split 'train', targets: NaN at row 3"):
        prepare(result, "regression", tmp_path)
