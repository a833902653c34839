"""Does the endpoint bear requests spoilt at random, and would the judge of `benchmarks.fuzz_http` notice if it did not?"""

import pytest

from benchmarks.fuzz_http import MEMORY_MB, check_answers, measure, spoil


def test_spoilt_requests_get_whole_answers_and_leave_no_memory():
    assert spoil(3000)["grown_mb"] < MEMORY_MB


@pytest.mark.parametrize(
    "written",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore",
    ],
)
def test_a_wrong_answer_is_noticed(written):
    with pytest.raises(AssertionError):
        check_answers(written)


@pytest.mark.slow
def test_guided_requests():
    pytest.importorskip("atheris", reason="atheris is not installed: it is in the extra [dev]")
    assert all(figure.holds is not False for figure in measure(50_000))
