"""How do a model's outputs become the bytes of a gRPC response?

protobuf writes the head; the raw tensors are joined on behind it, so that each is copied once, from the engine's memory into
the message.
"""

from typing import Any

import numpy as np

from runtime.backends.base import Tensors
from runtime.contract.artifact import Manifest, TensorSpec
from runtime.errors import RegionError, RequestError
from runtime.serving.classification import best_classes
from runtime.serving.grpc.parameters import PLAIN
from runtime.serving.grpc.schema import MESSAGES
from runtime.serving.grpc.wire import bytes_field
from runtime.serving.http.messages import Span, Wanted
from runtime.serving.regions import Regions
from runtime.serving.strings import write_strings

_RAW = MESSAGES.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_STREAMED = MESSAGES.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number


def new_head(manifest: Manifest, id: str) -> Any:
    """A ModelInferResponse that names who answers."""
    return MESSAGES.ModelInferResponse(model_name=manifest.model, model_version=manifest.version, id=id)


def encode_response(
    head: Any, specs: tuple[TensorSpec, ...], wanted: dict[str, Wanted], outputs: Tensors, regions: Regions
) -> list[bytes | memoryview]:
    """A response in parts, to be joined before the engine runs again: they may be its memory.

    head: is filled; specs: the model's outputs; wanted: empty for all of them. An output in shared memory is written there
    and keeps an empty place among the raw ones, which clients find by number. Raises RequestError, RegionError.
    """
    if wanted and (unknown := set(wanted) - {spec.name for spec in specs}):
        raise RequestError(f"{head.model_name} has no output {min(unknown)!r}")
    raws: list[bytes | memoryview] = []
    for spec in specs:
        wish = wanted.get(spec.name, PLAIN) if wanted else PLAIN
        if wanted and spec.name not in wanted:
            continue
        array, datatype = outputs[spec.name], str(spec.datatype)
        if wish.classes:
            array, datatype = best_classes(array, spec, wish.classes), "BYTES"
        tensor = head.outputs.add(name=spec.name, datatype=datatype, shape=array.shape)
        raw = _raw(array)
        if wish.span is not None:
            _to_region(tensor, wish.span, raw, regions)
            raw = b""
        raws += (bytes_field(_RAW, len(raw)), raw)
    return [head.SerializeToString(), *raws]


def as_streamed(parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """The same response as one of a stream."""
    return [bytes_field(_STREAMED, sum(map(len, parts))), *parts]


def streamed_failure(text: str, id: str) -> bytes:
    """What a stream says of a request that failed."""
    failure = MESSAGES.ModelStreamInferResponse(error_message=text)
    failure.infer_response.id = id
    return bytes(failure.SerializeToString())


def _raw(array: np.ndarray) -> bytes | memoryview:
    if array.dtype.hasobject:
        return write_strings(array)
    if array.nbytes and array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8).data
    return array.tobytes()


def _to_region(tensor: Any, span: Span, raw: bytes | memoryview, regions: Regions) -> None:
    if len(raw) > span.size:
        raise RegionError(f"output {tensor.name!r} has {len(raw)} bytes; {span.size} of region {span.region!r} were given for it")
    regions.write(span.region, span.offset, raw)
    tensor.parameters["shared_memory_region"].string_param = span.region
    tensor.parameters["shared_memory_byte_size"].int64_param = len(raw)
    if span.offset:
        tensor.parameters["shared_memory_offset"].int64_param = span.offset
