"""Are streams named, computed and bounded as their definitions say, whatever the layout?"""

from decimal import Decimal

import numpy as np
import pytest

from runtime.contract.artifact import Processing, Step, TensorSpec
from runtime.monitor.streams import (
    MAX_COLUMNS,
    class_count,
    count_predictions,
    predictions,
    stream_bounds,
    stream_plan,
    stream_rows,
)

SCORES = TensorSpec(name="scores", datatype="FP32", shape=(-1, 3))


def image_spec(layout, channels, **more):
    shape = {"NCHW": (-1, channels, 8, 8), "NHWC": (-1, 8, 8, channels)}[layout]
    return TensorSpec(name="image", datatype="FP32", shape=shape, layout=layout, **more)


def rows_of(spec, values):
    plan = stream_plan([spec], [], "tensor")
    return dict(zip([stream.name for stream in plan], stream_rows(plan, [spec], {spec.name: values}).T, strict=True))


def test_a_table_gives_its_columns_by_label():
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 2), labels=("age", "mass"))
    rows = rows_of(spec, np.array([[1, 2], [3, 4]], np.float32))
    assert {name: values.tolist() for name, values in rows.items()} == {"age": [1, 3], "mass": [2, 4]}


def test_a_wide_table_is_watched_at_evenly_spread_columns():
    plan = stream_plan([TensorSpec(name="x", datatype="FP32", shape=(-1, 1000))], [], "tensor")
    assert len(plan) == MAX_COLUMNS
    assert (plan[0].index, plan[-1].index) == (0, 999)
    assert len({stream.index for stream in plan}) == MAX_COLUMNS


def test_several_inputs_carry_their_tensor_names():
    specs = [TensorSpec(name=name, datatype="INT32", shape=(-1,)) for name in ("a", "b")]
    plan = stream_plan(specs, [], "tensor")
    assert [stream.name for stream in plan] == ["a.[0]", "b.[0]"]
    rows = stream_rows(plan, specs, {"a": np.array([1, 2], np.int32), "b": np.array([3, 4], np.int32)})
    assert rows.tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("kind", "names"), [("classification", []), ("regression", ["scores.[0]", "scores.[1]", "scores.[2]"]), ("detection", [])]
)
def test_outputs_are_watched_where_columns_mean_something(kind, names):
    assert [stream.name for stream in stream_plan([], [SCORES], kind)] == names


@pytest.mark.parametrize("shape", [(), (-1, 4, 5), (-1, 1, 8, 8)])
def test_tensors_of_unknown_form_are_not_watched(shape):
    assert stream_plan([TensorSpec(name="x", datatype="FP32", shape=shape)], [], "tensor") == ()


def test_image_statistics_follow_their_definitions():
    image = np.random.default_rng(1).random((5, 1, 8, 8))
    rows = rows_of(image_spec("NCHW", 1), image.astype(np.float32))
    assert list(rows) == ["brightness", "contrast", "sharpness", "entropy"]
    pixels = image[:, 0].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(rows["brightness"], pixels.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(rows["contrast"], pixels.std(axis=(1, 2)), rtol=1e-6)
    vertical, horizontal = np.abs(np.diff(pixels, axis=1)).mean(axis=(1, 2)), np.abs(np.diff(pixels, axis=2)).mean(axis=(1, 2))
    np.testing.assert_allclose(rows["sharpness"], (vertical + horizontal) / 2, rtol=1e-6)
    for index, one in enumerate(pixels):
        shares = np.histogram(one, bins=32, range=(0, 1))[0] / one.size
        shares = shares[shares > 0]
        assert rows["entropy"][index] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-6)


def test_a_flat_image_has_no_contrast_sharpness_or_entropy():
    rows = rows_of(image_spec("NCHW", 1), np.full((1, 1, 8, 8), 0.5, np.float32))
    assert [values.item() for values in rows.values()] == [0.5, 0, 0, 0]


def test_layouts_agree_and_colour_images_have_channel_means():
    values = np.random.default_rng(2).random((4, 3, 8, 8)).astype(np.float32)
    first = rows_of(image_spec("NCHW", 3, labels=("red", "green", "blue")), values)
    second = rows_of(image_spec("NHWC", 3), np.ascontiguousarray(values.transpose(0, 2, 3, 1)))
    assert list(first)[4:] == ["mean of red", "mean of green", "mean of blue"]
    assert list(second)[4:] == ["mean of 0", "mean of 1", "mean of 2"]
    np.testing.assert_allclose(list(first.values()), list(second.values()), rtol=1e-6)
    np.testing.assert_allclose(first["mean of green"], values[:, 1].mean(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("side", [31, 32, 33, 100, 224])
def test_large_images_are_sampled_without_losing_the_statistics(side):
    values = np.random.default_rng(side).random((2, 1, side, side)).astype(np.float32)
    spec = TensorSpec(name="image", datatype="FP32", shape=(-1, 1, side, side), layout="NCHW")
    rows = rows_of(spec, values)
    np.testing.assert_allclose(rows["brightness"], 0.5, atol=0.08)  # 4 standard errors of 256 uniform points
    np.testing.assert_allclose(rows["sharpness"], 1 / 3, atol=0.08)  # mean |a - b| of two uniform numbers


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 1, 1, 1), (2, 1, 1, 9)])
def test_degenerate_images_do_not_fail(shape):
    spec = TensorSpec(name="image", datatype="UINT8", shape=(-1, *shape[1:]), layout="NCHW")
    assert len(rows_of(spec, np.zeros(shape, np.uint8))["sharpness"]) == shape[0]


def test_nan_makes_only_its_own_image_missing():
    values = np.ones((3, 1, 8, 8), np.float32)
    values[1, 0, 3, 3] = np.nan
    for found in rows_of(image_spec("NCHW", 1), values).values():
        assert np.isnan(found).tolist() == [False, True, False]


def test_bounds_are_the_declared_range_where_a_stream_shares_its_unit():
    spec = image_spec("NCHW", 3, range=(Decimal(0), Decimal(1)))
    plan = stream_plan([spec, SCORES], [], "tensor")
    low, high = stream_bounds(plan, [spec, SCORES])
    found = {stream.name: bounds for stream, bounds in zip(plan, zip(low, high, strict=True), strict=True)}
    assert found["image.brightness"] == found["image.mean of 2"] == (0, 1)
    assert found["image.entropy"] == found["image.contrast"] == found["scores.[0]"] == (-np.inf, np.inf)


def test_predictions_follow_the_post_steps_not_the_values():
    scores = {"scores": np.array([[0.1, 0.7, 0.2], [2.0, 1.0, 0.0]], np.float32)}
    classes, confidence = predictions(scores, SCORES, Processing())
    assert classes.tolist() == [1, 0]
    np.testing.assert_allclose(confidence, [0.7, 2.0], rtol=1e-6)
    classes, confidence = predictions(scores, SCORES, Processing(post=(Step(name="softmax"),)))
    assert classes.tolist() == [1, 0]
    np.testing.assert_allclose(confidence[1], np.exp(2) / (np.exp(2) + np.exp(1) + 1), rtol=1e-6)


def test_a_single_score_tells_two_classes():
    spec = TensorSpec(name="p", datatype="FP32", shape=(-1, 1))
    assert class_count([spec], "classification") == 2
    post = Processing(post=(Step(name="sigmoid"),))
    classes, confidence = predictions({"p": np.array([[-2.0], [2.0], [0.1]], np.float32)}, spec, post)
    assert classes.tolist() == [0, 1, 1]
    np.testing.assert_allclose(confidence, 1 / (1 + np.exp([-2, -2, -0.1])), rtol=1e-6)


def test_broken_scores_belong_to_no_class():
    scores = {"scores": np.array([[np.nan, 0, 0], [0, 5, 0]], np.float32)}
    classes, confidence = predictions(scores, SCORES, Processing(post=(Step(name="softmax"),)))
    assert classes.tolist() == [-1, 1]
    per_class, per_cell = count_predictions(classes, confidence, 3)
    assert per_class.tolist() == [0, 1, 0]
    assert per_cell.sum() == 1
    assert per_cell[19] == 1


@pytest.mark.parametrize(
    ("shape", "kind", "count"),
    [((-1, 3), "classification", 3), ((-1, 3), "regression", 0), ((-1,), "classification", 0), ((-1, -1), "classification", 0)],
)
def test_class_count(shape, kind, count):
    assert class_count([TensorSpec(name="y", datatype="FP32", shape=shape)], kind) == count
