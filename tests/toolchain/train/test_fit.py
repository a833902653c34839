"""The training loop: every setting does what it says, and nothing else."""

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from tests.toolchain.train.small import ACCURACY, SETTINGS, TRAIN, VALIDATION, blobs, digest, fit, network, noise, plain_network
from toolchain.errors import NetworkError, RecipeError
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import EpochResult
from toolchain.recipe import TrainSection
from toolchain.train.course import Course
from toolchain.train.fit import Data, Teaching, Trainer
from toolchain.train.loss import CrossEntropy, RecipeLoss, pick_loss, teaching_loss
from toolchain.train.precision import Precision
from toolchain.train.step import Lesson, Stepper


def change(**keys) -> TrainSection:
    return msgspec.structs.replace(SETTINGS, **keys)


def distance(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of any weight."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def test_the_same_settings_give_the_same_bytes_whatever_was_drawn_before():
    first, result = fit(augment=noise)
    torch.rand(3), np.random.rand(3)
    again, _ = fit(augment=noise)
    assert digest(first) == digest(again)
    assert result.conditions == ()
    other, _ = fit(change(seed=6), augment=noise)
    assert digest(first) != digest(other)


def test_accumulated_batches_step_like_one_large_batch():
    """The mean gradient of 4 x 25 rows is that of 100; only the order of the sum differs. AdamW divides by the gradient's size,
    so that rounding of tiny gradients shows: 1e-4 is far above it and far below the 0.06 of another seed."""
    large, _ = fit(change(batch_size=100, epochs=4), plain_network)
    small, _ = fit(change(batch_size=25, epochs=4, accumulate=4), plain_network)
    other, _ = fit(change(batch_size=25, epochs=4), plain_network)
    assert distance(large, small) < 1e-4
    assert distance(large, other) > 1e-2


def test_the_average_is_judged_and_kept():
    """With one step an epoch the average can be computed here, from the weights every epoch of the plain training ends with."""
    settings = change(batch_size=100, epochs=4)
    made, steps = [], []

    class Spy(Silent):
        def tick(self, done, of, text):
            steps.append([weight.detach().clone() for weight in made[0].parameters()])

    fit(settings, lambda: made.append(plain_network()) or made[0], Spy())
    expected = steps[0]
    for number, weights in enumerate(steps[1:], start=1):
        keep = min(0.5, (1 + number) / (10 + number))
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected, weights, strict=True)]
    averaged, result = fit(msgspec.structs.replace(settings, ema=0.5), plain_network)
    assert result.best_epoch == 3  # else another epoch's average was kept
    for weight, value in zip(averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.detach(), value, rtol=0, atol=1e-6)


def test_the_average_has_batch_norm_statistics_of_its_own():
    """After one epoch, which both keep: the statistics of the plain network are those of its last steps alone."""
    averaged, _ = fit(change(ema=0.9, epochs=1))
    plain, _ = fit(change(epochs=1))
    assert not torch.equal(averaged[1].running_mean, plain[1].running_mean)
    assert int(averaged[1].num_batches_tracked) == int(plain[1].num_batches_tracked) == 7


def test_batches_of_any_size_weigh_by_their_rows():
    """The gradient of 90 and of 10 rows together is the one of all 100."""
    net = plain_network()
    stepper = Stepper(net, SETTINGS, Lesson(CrossEntropy()), steps=10, device=torch.device("cpu"))
    inputs, targets = TRAIN.inputs[0], TRAIN.targets
    expected = torch.autograd.grad(nn.functional.cross_entropy(net(inputs), targets), list(net.parameters()))
    total = stepper.step([((inputs[:90],), targets[:90]), ((inputs[90:],), targets[90:])], 100)
    for weight, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)  # float32 sums in another order
    assert total > 0


def test_balanced_weights_are_those_of_scikit_learn_and_raise_the_rare_class():
    from sklearn.utils.class_weight import compute_class_weight

    loss = CrossEntropy(balanced=True)
    loss.prepare(TRAIN.targets)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=TRAIN.targets.numpy())
    outputs = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(9) % 3
    expected = nn.functional.cross_entropy(outputs, targets, torch.tensor(wanted, dtype=torch.float32))
    torch.testing.assert_close(loss(outputs, targets), expected)
    rare = {}
    for balanced in (False, True):
        trained, _ = fit(loss=CrossEntropy(balanced=balanced))
        answers = trained.eval()(blobs(300, 3).inputs[0]).argmax(1)
        rare[balanced] = int((answers == 2).sum())
    assert rare[True] > 1.3 * rare[False]


def test_a_class_without_examples_weighs_one():
    loss = CrossEntropy(balanced=True)
    loss.prepare(torch.tensor([0, 0, 0, 1]))
    torch.testing.assert_close(loss._weights(4), torch.tensor([4 / 6, 2.0, 1.0, 1.0]))


@pytest.mark.parametrize(("settings", "kind"), [({}, "regression"), ({"loss": "own.py:loss"}, "classification")])
def test_balanced_weights_are_refused_where_there_is_no_cross_entropy(settings, kind, tmp_path):
    with (
        pytest.raises(RecipeError, match="usual cross-entropy"),
        pick_loss(change(class_weights="balanced", **settings), kind, tmp_path),
    ):
        pass


def test_augmentation_changes_training_batches_only():
    rows = []

    def spy(inputs):
        rows.append(len(inputs))
        return torch.zeros_like(inputs)

    trained, _ = fit(augment=spy)
    assert sum(rows) == SETTINGS.epochs * len(TRAIN.targets)
    with torch.no_grad():
        outputs = trained.eval()(VALIDATION.inputs[0])
    assert len(torch.unique(outputs, dim=0)) == len(VALIDATION.targets)  # validation saw the rows as they are


def test_an_augmentation_that_loses_rows_is_named():
    with pytest.raises(NetworkError, match=r"train.augment made \[7, 6\] of a batch of 15 rows and 1 inputs"):
        fit(augment=lambda inputs: inputs[:7])


def test_bfloat16_is_another_arithmetic_and_learns_as_well():
    wide, _ = fit()
    narrow, result = fit(change(precision="bfloat16"))
    assert digest(wide) != digest(narrow)
    assert {value.dtype for value in narrow.state_dict().values()} == {torch.float32, torch.int64}
    assert distance(wide, narrow) < 0.1
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_float16_without_a_gpu_is_refused():
    with pytest.raises(RecipeError, match='"float16" needs a GPU'):
        fit(change(precision="float16"))


def test_float16_scales_the_loss_and_leaves_out_a_step_that_overflows():
    """torch's scaler works on CPU tensors too, so that all but the autocast can be seen here."""
    precision = Precision("float32", torch.device("cpu"))
    precision._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    precision.backward((weight * 1e30).sum())
    assert not precision.step(optimizer)
    assert weight.item() == 1
    optimizer.zero_grad()
    precision.backward((weight * 1.0).sum())
    assert precision.step(optimizer)
    assert weight.item() == pytest.approx(0.9)


def test_frozen_parts_stay_and_their_batch_norm_too():
    start = network()
    before = digest(start)
    for name in ("0", "1"):
        start.get_submodule(name).requires_grad_(False)
    fit(make=lambda: start)
    after = digest(start)
    assert {name for name in before if before[name] != after[name]} == {"4.weight", "4.bias"}


def epochs(*metrics: float) -> list[EpochResult]:
    return [EpochResult(epoch=n, train_loss=1, validation_loss=1, metric=value, seconds=0) for n, value in enumerate(metrics)]


@pytest.mark.parametrize(
    ("metrics", "is_over"),
    [((0.5, 0.4), False), ((0.5, 0.4, 0.5), True), ((0.5, 0.4, 0.6), False), ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), True)],
    ids=["one worse", "two not better", "then better", "all epochs done"],
)
def test_patience_ends_a_training(metrics, is_over):
    course = Course(change(patience=2), ACCURACY)
    for epoch in epochs(*metrics):
        course.add(epoch, {})
    assert course.is_over is is_over


def test_a_diverging_loss_names_the_learning_rate():
    with pytest.raises(NetworkError, match=r"lower train\.learning_rate"):
        fit(loss=lambda outputs, targets: outputs.sum() * float("nan"))


def test_modes_stand_in_for_train_and_eval():
    class Stubborn(nn.Sequential):
        def train(self, mode=True):
            raise NotImplementedError("exported")

    said = []
    fit(make=lambda: Stubborn(*plain_network()), modes=(lambda net: said.append("train"), lambda net: said.append("eval")))
    assert said == ["train", "eval"] * SETTINGS.epochs


def test_a_penalty_is_part_of_the_loss():
    trained, _ = fit(make=plain_network)
    drawn, _ = fit(make=plain_network, penalty=lambda net: 0.1 * net[2].weight.abs().sum())
    assert drawn[2].weight.abs().sum() < 0.8 * trained[2].weight.abs().sum()


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_teaching_loss_is_hintons():
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(0, 2, (2, 5, 4))
    goal, own = softmax(teacher / 3), softmax(student / 3)
    expected = 9 * (goal * np.log(goal / own)).sum(1).mean()
    teaching = Teaching(nn.Identity(), temperature=3)
    both = (torch.tensor(student),), (torch.tensor(teacher),)
    assert teaching_loss(teaching, CrossEntropy(), *both).item() == pytest.approx(expected)
    squared = ((student - teacher) ** 2).mean()
    regression = RecipeLoss(nn.functional.mse_loss, "regression")
    assert teaching_loss(teaching, regression, *both).item() == pytest.approx(squared)
    probabilities = Teaching(nn.Identity(), scores="probabilities")
    assert teaching_loss(probabilities, CrossEntropy(), *both).item() == pytest.approx(squared)


def test_a_student_takes_after_its_teacher():
    """The teacher was taught other labels. Its dropout would show in its BatchNorm's statistics were it not in evaluation mode."""
    settings = change(
        epochs=1, batch_size=2, learning_rate=0.05
    )  # one epoch: its weights are kept however far they are from the labels
    swapped = Data(TRAIN.inputs, torch.tensor([1, 0, 2])[TRAIN.targets])
    torch.manual_seed(1)
    teacher = network()
    Trainer(teacher, settings, CrossEntropy(), ACCURACY).fit(swapped, VALIDATION, Silent())
    teacher.train()
    before = digest(teacher)
    inputs = VALIDATION.inputs[0]
    agreement = {}
    for weight in (0.0, 1.0):
        student, _ = fit(settings, plain_network, teaching=Teaching(teacher, weight=weight))
        with torch.no_grad():
            same = student.eval()(inputs).argmax(1) == teacher(inputs).argmax(1)
        agreement[weight] = same.float().mean().item()
    assert agreement[1.0] > 0.8, agreement
    assert agreement[0.0] < 0.5
    assert digest(teacher) == before
    assert not teacher.training


def test_a_teacher_with_other_outputs_is_refused():
    with pytest.raises(NetworkError, match=r"the teacher's outputs are \[\[15, 6\]\], the network's \[\[15, 3\]\]"):
        fit(teaching=Teaching(nn.Identity()))
