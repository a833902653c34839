"""What do the parameters of a gRPC request ask for? Those not named here are none of ours and are ignored."""

from typing import Any, NamedTuple

from runtime.errors import RequestError
from runtime.serving.http.messages import Span, Wanted

_MAX_CLASSES = 1 << 20


class Wishes(NamedTuple):
    """Of a whole request. key: what an A/B split goes by; wants_final_flag: each answer of a stream says it is the last."""

    key: str = ""
    wants_final_flag: bool = False


PLAIN = Wanted(is_binary=True)
NO_WISHES = Wishes()


def read_span(parameters: Any, what: str) -> Span | None:
    """Where the tensor of these parameters lies, None when it is in the message. Raises RequestError."""
    region = _value(parameters, "shared_memory_region", str, what)
    if region is None:
        return None
    size = _value(parameters, "shared_memory_byte_size", int, what)
    if size is None:
        raise RequestError(f"{what}: shared_memory_region without shared_memory_byte_size")
    return Span(region, _value(parameters, "shared_memory_offset", int, what) or 0, size)


def read_outputs(outputs: Any) -> dict[str, Wanted]:
    """The outputs asked for by name; none means all of them. Raises RequestError."""
    wanted: dict[str, Wanted] = {}
    for output in outputs:
        name = output.name
        if name in wanted:
            raise RequestError(f"output {name!r} is asked for twice")
        wanted[name] = _wanted_output(output.parameters, f"output {name!r}") if output.parameters else PLAIN
    return wanted


def read_wishes(parameters: Any) -> Wishes:
    if not parameters:
        return NO_WISHES
    key = _value(parameters, "split_key", (str, int), "the request")
    return Wishes(
        "" if key is None else str(key), bool(_value(parameters, "triton_enable_empty_final_response", bool, "the request"))
    )


def _wanted_output(parameters: Any, what: str) -> Wanted:
    classes = _value(parameters, "classification", int, what) or 0
    if not 0 <= classes <= _MAX_CLASSES:
        raise RequestError(f"{what}: classification must be 0 to {_MAX_CLASSES}, not {classes}")
    span = read_span(parameters, what)
    if span is not None and classes:
        raise RequestError(f"{what}: best classes cannot go to shared memory")
    return Wanted(True, classes, span)


def _value(parameters: Any, name: str, kind: type | tuple[type, ...], what: str) -> Any:
    """The value of one parameter, None when it is not given. Looking a missing one up would add it."""
    if name not in parameters:
        return None
    choice = parameters[name].WhichOneof("parameter_choice")
    value = getattr(parameters[name], choice) if choice else None
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        raise RequestError(f"{what}: parameter {name} must be {' or '.join(each.__name__ for each in kinds)}")
    return value
