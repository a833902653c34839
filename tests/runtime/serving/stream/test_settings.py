"""Are streams refused that could not work, or would meet the fleet's line or themselves?"""

import pytest

from runtime.errors import ConfigError
from runtime.serving.stream.settings import StreamSettings, check_stream, matches

GOOD = {"broker": "mqtt://localhost", "model": "m", "topic_in": "a/+/in", "topic_out": "a/out", "topic_dead": "a/dead"}


def test_a_good_one_says_where_its_broker_is():
    assert check_stream(StreamSettings(**GOOD)) == ("localhost", 1883, False)
    assert check_stream(StreamSettings(**GOOD | {"broker": "mqtts://[::1]:9"})) == ("::1", 9, True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": ""}, "stream.model"),
        ({"topic_dead": ""}, "stream.topic_dead"),
        ({"broker": "localhost:1883"}, "stream.broker"),
        ({"broker": "http://localhost"}, "stream.broker"),
        ({"broker": "mqtt://localhost:99999"}, "stream.broker"),
        ({"broker": "mqtt://me:secret@localhost"}, "stream.broker"),
        ({"topic_in": "edge/1/plant/gate/desired"}, "stream.topic_in"),
        ({"topic_in": "#"}, "stream.topic_in"),
        ({"topic_in": "+/1/a"}, "stream.topic_in"),
        ({"topic_in": "edge/+/a"}, "stream.topic_in"),
        ({"topic_in": "edge/#"}, "stream.topic_in"),
        ({"topic_in": "$share/us/edge/1/a"}, "stream.topic_in"),
        ({"topic_in": "a#"}, "stream.topic_in"),
        ({"topic_in": "a/#/b"}, "stream.topic_in"),
        ({"topic_out": "edge/1/plant/gate/event"}, "stream.topic_out"),
        ({"topic_out": "a/+"}, "stream.topic_out"),
        ({"topic_out": "$SYS/a"}, "stream.topic_out"),
        ({"topic_out": "a/b/in"}, "stream.topic_out"),
        ({"topic_dead": "a/b/in"}, "stream.topic_dead"),
        ({"ca_file": "/nothing/there"}, "stream.ca_file"),
    ],
)
def test_others_are_refused_by_the_key(change, named):
    with pytest.raises(ConfigError, match=named):
        check_stream(StreamSettings(**GOOD | change))


@pytest.mark.parametrize(
    ("filter", "topic", "expected"),
    [
        ("a", "a", True),
        ("a", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "$SYS/a", False),
        ("edge/2/x", "edge/1/x", False),
        ("$share/g/a/+", "a/b", True),
    ],
)
def test_matching_is_that_of_mqtt(filter, topic, expected):
    assert matches(filter, topic) is expected
