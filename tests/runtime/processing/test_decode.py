"""Do the decoding steps name the right classes and boxes, with ties, broken rows and torchvision's suppression?"""

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import Processing, Step, TensorSpec
from runtime.errors import RequestError
from runtime.processing.pipeline import decoded

SCORES = np.array([[0.1, 0.7, 0.7], [np.nan, 1, 2], [0.2, 0.1, 0.3]], np.float32)


@pytest.fixture
def manifest(make_manifest):
    def make(*post, labels=("a", "b", "c"), outputs=None):
        base = make_manifest(
            [TensorSpec(name="x", datatype="FP32", shape=(-1, 3))],
            outputs or [TensorSpec(name="y", datatype="FP32", shape=(-1, 3), labels=labels)],
            post=(),
        )
        return msgspec.structs.replace(base, processing=Processing(post=tuple(post)))

    return make


def test_argmax_takes_the_first_of_equals_and_no_class_of_a_broken_row(manifest):
    answer = decoded(manifest(Step(name="argmax")), {"y": SCORES})
    assert answer["class"].tolist() == [1, -1, 2]
    assert answer["label"].tolist() == ["b", "", "c"]
    np.testing.assert_allclose(answer["score"], [0.7, np.nan, 0.3], rtol=1e-6)


def test_top_k_ranks_and_leaves_out_what_is_below_the_threshold(manifest):
    answer = decoded(manifest(Step(name="top_k", options={"k": 2, "threshold": "0.25"})), {"y": SCORES})
    assert answer["class"].tolist() == [[1, 2], [-1, -1], [2, -1]]
    assert answer["label"].tolist() == [["b", "c"], ["", ""], ["c", ""]]
    assert np.isnan(answer["score"]).tolist() == [[False, False], [True, True], [False, True]]
    assert "label" not in decoded(manifest(Step(name="top_k"), labels=()), {"y": SCORES})
    assert decoded(manifest(Step(name="top_k")), {"y": SCORES})["class"].shape == (3, 3), "k beyond the classes means all"


def test_score_steps_come_first_and_without_a_decoding_step_scores_are_the_answer(manifest):
    answer = decoded(manifest(Step(name="softmax"), Step(name="argmax")), {"y": SCORES})
    assert answer["score"][2] == pytest.approx(np.exp(0.3) / np.exp([0.2, 0.1, 0.3]).sum(), rel=1e-6)
    plain = decoded(manifest(Step(name="sigmoid")), {"y": SCORES})
    assert list(plain) == ["y"]
    np.testing.assert_allclose(plain["y"][0], 1 / (1 + np.exp(-SCORES[0].astype(float))))
    np.testing.assert_array_equal(decoded(manifest(), {"y": SCORES})["y"], SCORES)


def test_nms_is_torchvision_s(manifest):
    import torch
    from torchvision.ops import batched_nms

    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 50, (2, 60, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 30, (2, 60, 2))], axis=-1).astype(np.float32)
    scores = generator.uniform(size=(2, 60, 3)).astype(np.float32)
    outputs = [
        TensorSpec(name="boxes", datatype="FP32", shape=(-1, 60, 4)),
        TensorSpec(name="scores", datatype="FP32", shape=(-1, 60, 3), labels=("a", "b", "c")),
    ]
    step = Step(name="nms", options={"threshold": "0.3", "overlap": "0.4", "limit": 200})
    answer = decoded(manifest(step, outputs=outputs), {"boxes": boxes, "scores": scores})
    for row in range(2):
        places, classes = np.nonzero(scores[row] >= 0.3)
        chosen = scores[row][places, classes]
        kept = batched_nms(torch.from_numpy(boxes[row][places]), torch.from_numpy(chosen), torch.from_numpy(classes), 0.4).numpy()
        found = int((answer["class"][row] >= 0).sum())
        assert found == len(kept) < len(places)
        np.testing.assert_array_equal(answer["class"][row, :found], classes[kept])
        np.testing.assert_array_equal(answer["box"][row, :found], boxes[row][places[kept]])
        assert np.isnan(answer["score"][row, found:]).all()
        assert set(answer["label"][row, found:]) == {""}


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((1, 2, 3)), np.zeros((2, 0))])
def test_scores_of_another_form_are_refused(manifest, scores):
    with pytest.raises(RequestError, match="expected scores with 2 axes"):
        decoded(manifest(Step(name="argmax")), {"y": scores})
