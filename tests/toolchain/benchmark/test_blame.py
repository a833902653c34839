"""Does the sentence name the operators that make an int8 model slow, and nothing that does not?"""

from toolchain.benchmark.blame import why_slower
from toolchain.benchmark.operators import Operator


def operator(kind: str, microseconds: float, *, integer: bool = False) -> Operator:
    return Operator(name=f"{kind} {microseconds}", kind=kind, ns=round(microseconds * 1000), integer=integer)


PLAIN = [operator("Conv", 40), operator("Conv", 40), operator("Gemm", 20)]


def test_conversions_and_what_stayed_float_are_named_with_their_share() -> None:
    integer = [
        operator("QuantizeLinear", 30),
        operator("DequantizeLinear", 10),
        operator("QLinearConv", 20, integer=True),
        operator("Conv", 20),
        operator("QGemm", 20, integer=True),
    ]
    assert why_slower(integer, PLAIN) == "QuantizeLinear/DequantizeLinear take 40% of its time and 1 of 2 Conv stays float"


def test_a_family_that_lost_time_is_named_whatever_the_engine_calls_it() -> None:
    integer = [
        operator("QLinearConv", 90, integer=True),
        operator("ConvInteger", 30, integer=True),
        operator("QGemm", 5, integer=True),
    ]
    assert why_slower(integer, PLAIN) == "Conv takes 120 µs instead of 80 µs"


def test_an_operator_the_float_model_fused_away() -> None:
    integer = [operator("QLinearConv", 60, integer=True), operator("HardSigmoid", 50), operator("QGemm", 10, integer=True)]
    assert why_slower(integer, PLAIN) == "HardSigmoid takes 50 µs that the float model does not spend"


def test_conversions_the_float_model_has_as_well_are_no_excuse() -> None:
    plain = [operator("Reorder", 30), operator("Convolution", 50)]
    integer = [operator("Reorder", 30), operator("Convolution", 51, integer=True)]
    assert why_slower(integer, plain) == "no operator stands out: its 2 operators take 81 µs, the float model's 2 take 80 µs"


def test_nothing_is_said_where_the_engine_told_nothing() -> None:
    assert why_slower([], PLAIN) == ""
    assert why_slower(PLAIN, []) == ""
