"""Does the same key always go the same way, and does a share come out exactly?"""

import http.client
import json
import threading
from itertools import islice

import pytest

from runtime.contract.deployment import SHARE_WHOLE
from runtime.errors import ModelNotFoundError
from runtime.serving.models.split import holds_key, turns
from tests.runtime.serving.conftest import write_artifact
from tests.runtime.serving.models.test_repository import ROWS


@pytest.mark.parametrize("share", [0, 1, 999, 1000, 3333, 5000, 9999, SHARE_WHOLE])
def test_of_every_ten_thousand_turns_exactly_the_share_is_chosen(share):
    chosen = list(islice(turns(share), 3 * SHARE_WHOLE))
    assert [sum(chosen[start : start + SHARE_WHOLE]) for start in range(0, 3 * SHARE_WHOLE, SHARE_WHOLE)] == [share] * 3
    # Near exact in short stretches too: one in each of as many equal ones.
    counts = [sum(chosen[:length]) for length in range(SHARE_WHOLE)]
    assert all(abs(count - length * share / SHARE_WHOLE) < 2 for length, count in enumerate(counts))


@pytest.mark.parametrize("rhythm", [2, 5, 10, 100])
def test_traffic_with_a_rhythm_is_sampled_evenly(rhythm):
    """Every tenth turn, taken plainly, would see only one kind of request of a client that sends ten kinds in turn."""
    chosen = list(islice(turns(1000), SHARE_WHOLE))
    kinds = [sum(chosen[kind::rhythm]) for kind in range(rhythm)]
    assert min(kinds) > 0
    assert max(kinds) < 1000 / rhythm + 6 * (1000 / rhythm) ** 0.5


def test_turns_are_safe_from_several_threads():
    endless, counts = turns(1234), []
    threads = [threading.Thread(target=lambda: counts.append(sum(islice(endless, SHARE_WHOLE)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 4 * 1234


def test_keys_go_where_the_documented_hash_says():
    """Fixed for ever: a device of another release must send a user the same way. Values by `b2sum -l 64`."""
    # printf 'digits\0user-1' | b2sum -l 64 -> the first 16 hexadecimal digits, scaled to 0..9999
    for key, digest in DIGESTS.items():
        place = int(digest, 16) * SHARE_WHOLE >> 64
        assert not holds_key("digits", key, place)
        assert holds_key("digits", key, place + 1)


DIGESTS = {"user-1": "c210395126211989", "user-2": "97751d35b76f1d48", "ü": "1785d4aadd6abc40"}


def test_keys_spread_evenly_and_a_growing_share_keeps_its_keys():
    keys = [f"user-{index}" for index in range(20_000)]
    small, large = ({key for key in keys if holds_key("digits", key, share)} for share in (1000, 3000))
    assert small < large
    assert abs(len(small) / len(keys) - 0.1) < 0.01
    assert abs(len(large) / len(keys) - 0.3) < 0.015
    assert {key for key in keys if holds_key("other", key, 1000)} != small  # models do not share their luck
    assert not any(holds_key("digits", key, 0) for key in keys)
    assert all(holds_key("digits", key, SHARE_WHOLE) for key in keys)


@pytest.fixture
def halves(repository, tmp_path):
    """An active 1.0.0 and a split 2.0.0 with 30 % of the traffic."""
    write_artifact(tmp_path / "two", version="2.0.0", scale=2.0)
    repository.switch(repository.open(tmp_path / "two", "split", 3000))
    return repository


def test_a_split_answers_its_share_and_each_is_counted_apart(halves):
    versions = [halves.infer("tiny", ROWS)[0].artifact.version for _ in range(1000)]
    assert abs(versions.count("2.0.0") - 300) < 2
    assert halves.health("tiny", "split").requests == versions.count("2.0.0")
    assert halves.health("tiny").requests == versions.count("1.0.0")


def test_a_key_sticks_to_its_version(halves):
    for key in ("user-1", "user-2", "user-3", "x" * 100, "\ud800"):
        expected = "split" if holds_key("tiny", key, 3000) else "active"
        assert {halves.infer("tiny", ROWS, key=key)[0].role for _ in range(20)} == {expected}


def test_a_version_asked_for_by_name_is_found_in_either_role(halves):
    assert [halves.infer("tiny", ROWS, version)[0].role for version in ("1.0.0", "2.0.0")] == ["active", "split"]
    with pytest.raises(ModelNotFoundError, match=r"1\.0\.0 and 2\.0\.0, not 3"):
        halves.infer("tiny", ROWS, "3.0.0")


def test_a_split_that_ends_leaves_everything_to_the_active_version(halves):
    picked = next(served for served in iter(lambda: halves.pick("tiny"), None) if served.role == "split")
    assert halves.retire("tiny", "split") is picked
    assert halves.run(picked, ROWS)[0].role == "active"  # as of a request that waited meanwhile
    assert {halves.infer("tiny", ROWS)[0].role for _ in range(50)} == {"active"}


def test_a_split_without_an_active_version_answers_only_by_name(halves):
    halves.retire("tiny")
    with pytest.raises(ModelNotFoundError):
        halves.infer("tiny", ROWS)
    assert halves.infer("tiny", ROWS, "2.0.0")[0].role == "split"


def test_a_new_share_holds_from_the_switch_on(halves, tmp_path):
    halves.switch(halves.open(tmp_path / "two", "split", SHARE_WHOLE))
    assert {halves.infer("tiny", ROWS)[0].role for _ in range(50)} == {"split"}


@pytest.mark.parametrize("way", ["parameter", "header"])
def test_over_http_a_key_decides_and_the_version_is_named(halves, endpoint, way):
    for key in ("user-1", "user-2", "user-3", "user-4"):
        body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        headers = {"Edgewright-Split-Key": key} if way == "header" else {}
        if way == "parameter":
            body["parameters"] = {"split_key": key}
        for _ in range(3):
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=10)
            connection.request("POST", "/v2/models/tiny/infer", json.dumps(body), headers)
            answer = json.loads(connection.getresponse().read())
            connection.close()
            assert answer["model_version"] == ("2.0.0" if holds_key("tiny", key, 3000) else "1.0.0")
