"""Do the sentences about a choice claim what the figures carry, and no more?"""

import msgspec

from tests.toolchain.report.sample import FORMS, VARIANTS, metric, recipe, result, target, variant
from toolchain.pipeline.record import DropResult, TargetResult, VariantResult
from toolchain.report import why, wording
from toolchain.report.reproduce import commands

FLOAT = VARIANTS[0]


def said(*variants: VariantResult) -> str:
    return "\n".join(why.points(of(*variants), recipe(), FORMS))


def of(*variants: VariantResult) -> TargetResult:
    return target(variants=variants)


def float_chosen() -> VariantResult:
    return msgspec.structs.replace(FLOAT, verdict="chosen", reason="nothing that passed is surely faster")


def test_each_limit_names_what_it_cut() -> None:
    large = variant("openvino-huge", "openvino", "float32", (0.9889, 100.0, 1.1, 900_000), "rejected", "too large")
    broken = variant("openvino-broken", "openvino", "int8", (0.98, 100.0, 1.1, 9), "rejected", "its outputs differ")
    broken = msgspec.structs.replace(broken, parity=msgspec.structs.replace(broken.parity, ok=False))
    other = variant("openvino-else", "openvino", "int8", (0.98, 100.0, 1.1, 9), "rejected", "something new")
    found = why.cuts(of(*VARIANTS, large, broken, other), recipe())
    assert found == {
        "latency": ["onnxruntime-int8"],
        "metric": ["openvino-int8", "pruned50-onnxruntime-int8-entropy"],
        "size": ["openvino-huge"],
        "outputs": ["openvino-broken"],
        "something new": ["openvino-else"],
    }
    text = said(*VARIANTS, other)
    assert "openvino-else is out: something new." in text
    assert "onnxruntime-int8 misses the latency limit of 0.5 ms." in text
    assert "openvino-int8 and pruned50-onnxruntime-int8-entropy lose more than 0.01 accuracy." in text
    assert "15 variants of 2 forms (base and pruned50) were judged; distilled helped too little to become any." in text


def test_many_cut_variants_are_counted_not_listed() -> None:
    bad = [variant(f"openvino-x{index}", "openvino", "int8", (0.5, 100.0, 1.1, 9), "rejected", "x") for index in range(7)]
    assert "openvino-x0, openvino-x1, openvino-x2 and 4 more lose more than 0.01 accuracy." in said(float_chosen(), *bad)


def test_float_wins_because_nothing_is_surely_faster() -> None:
    near = variant(
        "onnxruntime-int8", "onnxruntime", "int8", (0.9861, 405.0, 1.01, 9), "passed", "x", "QuantizeLinear takes 18 %"
    )
    text = said(float_chosen(), near)
    assert "It is the float baseline itself" in text
    assert (
        "Nothing that passed is surely faster: the nearest, onnxruntime-int8, is at 1.01× with an interval of 0.98 – 1.04, "
        "which includes 1 (QuantizeLinear takes 18 %)." in text
    )


def test_float_wins_although_something_faster_was_out() -> None:
    text = said(float_chosen(), VARIANTS[5])
    assert "No other variant kept within the limits." in text
    assert "openvino-int8 is faster, 2.10×, and out: accuracy drops by 0.0251 on validation data, more than 0.01." in text


def test_float_is_not_said_to_be_fastest_where_it_is_not() -> None:
    assert "surely faster" not in said(float_chosen(), VARIANTS[2])


def test_a_metric_where_less_is_better_is_compared_by_its_drop() -> None:
    turned = tuple(
        msgspec.structs.replace(each, metrics=(msgspec.structs.replace(each.metrics[0], name="mae", goal="min"),))
        for each in (FLOAT, VARIANTS[12])
    )
    text = said(*turned)
    assert "On validation data its mae is 0.0070 worse than the float model" in text
    assert "the recipe allows a rise of 0.01." in text


def test_of_a_metric_where_less_is_better_nothing_is_said_to_be_lost() -> None:
    mae = msgspec.structs.replace(metric(0.9889, "test", 360), name="mae", goal="min")
    text = " ".join(
        why.points(msgspec.structs.replace(of(FLOAT, VARIANTS[5], VARIANTS[12]), metrics=(mae,)), result().recipe, ())
    )
    assert "openvino-int8 raises accuracy by more than 0.01." in text  # the recipe of the sample still names accuracy
    assert "lose" not in text


def test_a_drop_is_claimed_only_outside_its_interval() -> None:
    assert wording.drop_claim(DropResult(value=0.02, low=0.01, high=0.03, n=100)).startswith("0.0200 worse")
    assert wording.drop_claim(DropResult(value=-0.02, low=-0.03, high=-0.01, n=100)).startswith("0.0200 better")
    assert wording.drop_claim(DropResult(value=0.02, low=-0.01, high=0.05, n=100)).startswith("not to be told from")
    assert (
        wording.drop_claim(DropResult(value=0.0, low=0.0, high=0.0, n=100))
        == "exactly as good as the float model, over 100 examples"
    )


def test_the_form_says_what_it_saves() -> None:
    assert "pruned50, needs 27 % of the base's multiplications and 27 % of its parameters." in said(*VARIANTS)


def test_the_resolution_is_stated_with_the_drop_beside_it() -> None:
    assert why.resolution(target(), "accuracy").endswith("the chosen variant's drop of 0.0028 is below that.")
    assert why.resolution(of(float_chosen()), "accuracy").endswith("from none. The chosen variant is the float model itself.")
    seen = msgspec.structs.replace(target(), drop=DropResult(value=0.02, low=0.01, high=0.03, n=360))
    assert why.resolution(seen, "accuracy").endswith("0.0200 is above that.")


def test_the_commands_build_what_was_built() -> None:
    built = result()
    lines = [command.line for command in commands(built)]
    assert lines[0] == "toolchain build recipe.toml --explain"
    assert lines[1] == "toolchain build recipe.toml --target x86-64-cpu --evidence out/digits/1.0.0/x86-64-cpu/evidence.json"
    other = msgspec.structs.replace(built, targets=(target("pi"),), out="/home/ada/digits/my out/digits/1.0.0")
    lines = [command.line for command in commands(other)]
    assert lines[0] == "toolchain build recipe.toml --target pi --explain"
    assert lines[2] == "toolchain inspect 'my out/digits/1.0.0'"
    changed = msgspec.structs.replace(built, changes=("train.epochs=9", "model.description=two words"))
    lines = [command.line for command in commands(changed)]
    assert lines[0] == "toolchain build recipe.toml --set train.epochs=9 --set 'model.description=two words' --explain"
    assert "--set train.epochs=9" in lines[1]
    unmeasured = msgspec.structs.replace(built, targets=(target(measured=False),))
    assert not [line for line in (command.line for command in commands(unmeasured)) if "--evidence" in line]
