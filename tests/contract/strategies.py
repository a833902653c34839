"""How does hypothesis make any message of the contract? From the types themselves, bounds and patterns included."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect


def any_of(kind: type) -> st.SearchStrategy[Any]:
    """A strategy for every valid value of a contract type, built from msgspec's own description of it."""
    return _from(inspect.type_info(kind))


def _from(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.Metadata():
            return _from(info.type)
        case inspect.StructType():
            return _struct(info)
        case inspect.StrType(pattern=str(pattern)):
            # \Z is Python's end of text; hypothesis generates from the same pattern.
            return st.from_regex(pattern, fullmatch=True)
        case inspect.StrType():
            return st.text(st.characters(codec="utf-8"), min_size=info.min_length or 0, max_size=min(info.max_length or 20, 20))
        case inspect.BytesType():
            return st.binary(min_size=info.min_length or 0, max_size=info.max_length or 64)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            low = info.ge if info.ge is not None else -(2**63)
            return st.integers(low, info.le if info.le is not None else 2**63 - 1)
        case inspect.DecimalType():
            return st.decimals(allow_nan=False, allow_infinity=False)
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.UnionType():
            return st.one_of(*map(_from, info.types))
        case inspect.TupleType():
            return st.tuples(*map(_from, info.item_types))
        case inspect.VarTupleType():
            return st.lists(_from(info.item_type), min_size=info.min_length or 0, max_size=4).map(tuple)
        case inspect.DictType():
            return st.dictionaries(_from(info.key_type), _from(info.value_type), max_size=4)
    raise TypeError(f"no strategy for {info}")


def _struct(info: inspect.StructType) -> st.SearchStrategy[Any]:
    kind: type[msgspec.Struct] = info.cls
    return st.builds(kind, **{field.name: _from(field.type) for field in info.fields})
