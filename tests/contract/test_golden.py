"""Do the files every release ever wrote still load, re-encode to the same bytes, and keep what is unknown here?"""

import json
from pathlib import Path

import msgspec
import pytest

from runtime.contract.canonical import MANIFEST_LIMIT, read_json, read_message, write_json, write_message
from tests.contract.samples import DOCUMENTS, MESSAGES

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(folder.name for folder in GOLDEN.iterdir())


def test_every_kind_has_a_golden_file_in_the_newest_release() -> None:
    written = {path.stem for path in (GOLDEN / RELEASES[-1]).iterdir()}
    assert written == set(DOCUMENTS) | set(MESSAGES)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_loads_and_re_encodes_to_the_same_bytes(release: str, name: str) -> None:
    raw = (GOLDEN / release / f"{name}.json").read_bytes()
    received = read_json(raw, type(DOCUMENTS[name]), MANIFEST_LIMIT)
    assert received.raw == raw
    assert write_json(received.value) == raw


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", MESSAGES)
def test_message_loads_and_re_encodes_to_the_same_bytes(release: str, name: str) -> None:
    raw = (GOLDEN / release / f"{name}.msgpack").read_bytes()
    received = read_message(raw, type(MESSAGES[name]), MANIFEST_LIMIT)
    assert received.raw == raw
    assert write_message(received.value, MANIFEST_LIMIT) == raw


@pytest.mark.parametrize("name", DOCUMENTS)
def test_newest_golden_document_is_what_this_version_writes(name: str) -> None:
    assert write_json(DOCUMENTS[name]) == (GOLDEN / RELEASES[-1] / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_newest_golden_message_is_what_this_version_writes(name: str) -> None:
    assert write_message(MESSAGES[name], MANIFEST_LIMIT) == (GOLDEN / RELEASES[-1] / f"{name}.msgpack").read_bytes()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_unknown_field_of_a_document_survives_in_the_received_bytes(name: str) -> None:
    fields = json.loads(write_json(DOCUMENTS[name]))
    raw = json.dumps(fields | {"from_the_future": {"deep": [1, "2"]}}, sort_keys=True).encode()
    received = read_json(raw, type(DOCUMENTS[name]), MANIFEST_LIMIT)
    assert received.value == DOCUMENTS[name]
    assert received.raw == raw


@pytest.mark.parametrize("name", MESSAGES)
def test_unknown_field_of_a_message_survives_in_the_received_bytes(name: str) -> None:
    fields = msgspec.msgpack.decode(write_message(MESSAGES[name], MANIFEST_LIMIT))
    raw = msgspec.msgpack.encode(fields | {"from_the_future": {"deep": [1, "2"]}})
    received = read_message(raw, type(MESSAGES[name]), MANIFEST_LIMIT)
    assert received.value == MESSAGES[name]
    assert received.raw == raw
