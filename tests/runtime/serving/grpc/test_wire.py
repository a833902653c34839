"""Are messages taken apart as protobuf itself would, and damaged ones refused?"""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import DaemonError, RequestError
from runtime.serving.grpc.exchange import Exchange
from runtime.serving.grpc.schema import MESSAGES
from runtime.serving.grpc.wire import MAX_FIELDS, bytes_field, split_fields
from runtime.serving.limits import LimitSettings
from runtime.serving.regions import Regions

RAW = 7


def request(raws=(b"abcd",), **fields):
    message = MESSAGES.ModelInferRequest(model_name="tiny", id="1", raw_input_contents=raws, **fields)
    message.inputs.add(name="x", datatype="UINT8", shape=[4])
    message.parameters["timeout"].int64_param = 7
    return message


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_raw_tensors_are_taken_out_and_the_rest_stays(raws):
    message = request(raws)
    rest, taken = split_fields(message.SerializeToString(), RAW)
    assert [bytes(one) for one in taken] == raws
    message.ClearField("raw_input_contents")
    assert MESSAGES.ModelInferRequest.FromString(rest) == message


def test_fields_of_every_wire_type_are_passed_on():
    unknown = b"\xa0\x06\x96\x01" + b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4)
    rest, taken = split_fields(unknown + bytes_field(RAW, 2) + b"ab", RAW)
    assert (rest, [bytes(one) for one in taken]) == (unknown, [b"ab"])


@pytest.mark.parametrize(
    "body",
    [
        b"\x3a",
        b"\x3a\x05abc",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff" * 12,
        b"\x0b",
        b"\x0d\x01",
        b"\x3a\x00" * (MAX_FIELDS + 1),
    ],
)
def test_damaged_messages_are_refused(body):
    with pytest.raises(RequestError):
        split_fields(body, RAW)


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(body):
    with suppress(DaemonError):
        Exchange(body, Regions(is_offered=False), LimitSettings(), is_streamed=False).call()


@given(st.data())
def test_a_request_with_bytes_changed_is_read_or_refused(data):
    body = bytearray(request().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DaemonError):
        Exchange(bytes(body), Regions(is_offered=False), LimitSettings(), is_streamed=False).call()
