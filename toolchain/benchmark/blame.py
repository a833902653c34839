"""Which operators are to blame when the int8 form of a model is not faster than its float form in the same engine?"""

from collections.abc import Mapping, Sequence

from toolchain.benchmark.operators import Operator

CONVERSIONS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "ReorderInput", "ReorderOutput",  # onnxruntime
        "Reorder", "FakeQuantize", "Convert", "Transpose",
    }
)  # fmt: skip
"""Operators that compute nothing: they change the type or the order of numbers between those that do."""
_HEAVY = ("Conv", "Gemm", "MatMul", "Convolution", "GroupConvolution", "FullyConnected", "Deconvolution", "ConvTranspose")
_WORTH_SAYING = 0.05


def why_slower(integer: Sequence[Operator], plain: Sequence[Operator]) -> str:
    """One sentence about the int8 model's operators beside the float model's; "" when either engine told nothing."""
    if not integer or not plain:
        return ""
    parts = [*_conversions(integer, plain), *_left_in_float(integer), *_grown(integer, plain)]
    if not parts:
        return (
            f"no operator stands out: its {len(integer)} operators take {_us(_sum(integer))} µs, "
            f"the float model's {len(plain)} take {_us(_sum(plain))} µs"
        )
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _conversions(integer: Sequence[Operator], plain: Sequence[Operator]) -> list[str]:
    """What is spent on converting beyond what the float model spends on it."""
    spent = _by_family([operator for operator in integer if operator.kind in CONVERSIONS])
    before = _by_family([operator for operator in plain if operator.kind in CONVERSIONS])
    more = sum(spent.values()) - sum(before.values())
    if more < _WORTH_SAYING * _sum(integer):
        return []
    names = [name for name, ns in sorted(spent.items(), key=lambda item: (-item[1], item[0])) if ns > before.get(name, 0)]
    share = sum(spent[name] for name in names) / max(_sum(integer), 1)
    return [f"{'/'.join(names[:3])} {'takes' if len(names) == 1 else 'take'} {share:.0%} of its time"]


def _left_in_float(integer: Sequence[Operator]) -> list[str]:
    texts = []
    for family in _HEAVY:
        found = [operator for operator in integer if operator.family == family]
        left = [operator for operator in found if not operator.integer]
        if left and _sum(left) >= _WORTH_SAYING * _sum(integer):
            texts.append(f"{len(left)} of {len(found)} {family} {'stays' if len(left) == 1 else 'stay'} float")
    return texts


def _grown(integer: Sequence[Operator], plain: Sequence[Operator]) -> list[str]:
    """The family of operators that lost most, conversions apart."""
    now, before = (_by_family([operator for operator in side if operator.kind not in CONVERSIONS]) for side in (integer, plain))
    lost = {family: ns - before.get(family, 0) for family, ns in now.items()}
    worst = max(lost, key=lambda family: (lost[family], family), default=None)
    if worst is None or lost[worst] < _WORTH_SAYING * _sum(plain):
        return []
    if not before.get(worst):
        return [f"{worst} takes {_us(now[worst])} µs that the float model does not spend"]
    return [f"{worst} takes {_us(now[worst])} µs instead of {_us(before[worst])} µs"]


def _by_family(operators: Sequence[Operator]) -> Mapping[str, int]:
    sums: dict[str, int] = {}
    for operator in operators:
        sums[operator.family] = sums.get(operator.family, 0) + operator.ns
    return sums


def _sum(operators: Sequence[Operator]) -> int:
    return sum(operator.ns for operator in operators)


def _us(ns: int) -> str:
    return f"{ns / 1000:.3g}"
