"""Does every value of every contract type come back from its bytes as it was?"""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.contract import canonical as c
from runtime.contract import telemetry as t
from runtime.contract.errors import MalformedError, TooLargeError
from runtime.contract.topics import DELIVERY, Channel, parse, topic
from tests.contract.samples import DOCUMENTS, MESSAGES, WINDOW
from tests.contract.strategies import any_of

WIDE = 10 * c.MANIFEST_LIMIT
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
NAMES = st.from_regex(r"\A[a-z0-9-]{1,40}\Z", fullmatch=True)


@pytest.mark.parametrize("name", DOCUMENTS)
@quick
@given(data=st.data())
def test_documents(name: str, data: st.DataObject) -> None:
    kind = type(DOCUMENTS[name])
    value = data.draw(any_of(kind))
    raw = c.write_json(value)
    received = c.read_json(raw, kind, WIDE)
    assert received.value == value
    assert c.write_json(received.value) == raw


@pytest.mark.parametrize("name", MESSAGES)
@quick
@given(data=st.data())
def test_messages(name: str, data: st.DataObject) -> None:
    kind = type(MESSAGES[name])
    value = data.draw(any_of(kind))
    received = c.read_message(c.write_message(value, WIDE), kind, WIDE)
    assert received.value == value


@quick
@given(counts=st.lists(st.integers(0, 2**63 - 1), min_size=t.CELLS, max_size=t.CELLS))
def test_windows_survive_compression(counts: list[int]) -> None:
    window = msgspec.structs.replace(WINDOW, streams=(t.StreamCounts(tuple(counts), 1, 2),))
    assert t.read_window(t.write_window(window)).value == window


@quick
@given(fleet=NAMES, device=NAMES, channel=st.sampled_from(Channel), id_=NAMES)
def test_topics(fleet: str, device: str, channel: Channel, id_: str) -> None:
    name = topic(fleet, device, channel, id_ if DELIVERY[channel].has_id else "")
    address = parse(name)
    assert (address.fleet, address.device, address.channel) == (fleet, device, channel)
    assert topic(fleet, device, channel, address.id) == name


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_with_a_code(raw: bytes) -> None:
    for kind in (type(value) for value in MESSAGES.values()):
        with suppress(MalformedError):  # anything else that escapes fails the test
            assert c.read_message(raw, kind, WIDE).raw == raw
    with pytest.raises((MalformedError, TooLargeError)):
        t.read_window(raw)
