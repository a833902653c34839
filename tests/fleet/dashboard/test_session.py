"""Tickets: what holds, and every way in which one does not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.dashboard.session import KEY_BYTES, LIFETIME_S, NOBODY, Sealer, issue, load_key, safe_next

NOW = 1_790_000_000.0
SEALER = Sealer(b"k" * KEY_BYTES)


def test_ticket_opens_until_it_expires() -> None:
    ticket = issue(7, NOW)
    cookie = SEALER.seal(ticket)
    assert SEALER.open(cookie, NOW) == ticket
    assert SEALER.open(cookie, NOW + LIFETIME_S - 1) == ticket
    assert SEALER.open(cookie, NOW + LIFETIME_S) is None


def test_no_changed_character_is_accepted() -> None:
    cookie = SEALER.seal(issue(7, NOW))
    for place, letter in enumerate(cookie):
        forged = cookie[:place] + ("0" if letter != "0" else "1") + cookie[place + 1 :]
        assert SEALER.open(forged, NOW) is None, place


@given(st.text(max_size=120))
def test_no_text_opens(text: str) -> None:
    assert SEALER.open(text, NOW) is None


def test_another_key_opens_nothing() -> None:
    assert Sealer(b"x" * KEY_BYTES).open(SEALER.seal(issue(7, NOW)), NOW) is None
    assert SEALER.open(None, NOW) is None


def test_form_token_belongs_to_one_ticket() -> None:
    one, other = issue(7, NOW), issue(7, NOW)
    assert SEALER.is_form_token(one, SEALER.form_token(one))
    assert not SEALER.is_form_token(other, SEALER.form_token(one))
    assert not SEALER.is_form_token(issue(NOBODY, NOW), SEALER.form_token(one))
    assert not SEALER.is_form_token(one, "é")
    assert SEALER.seal(one).rpartition(".")[2] != SEALER.form_token(one)


def test_key_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "dashboard.key"
    key = load_key(path)
    assert len(key) == KEY_BYTES
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="needs 32 bytes"):
        Sealer(b"short")


@pytest.mark.parametrize(("given_next", "led_to"), [
    ("/", "/"),
    ("/rollouts/r-1?x=1", "/rollouts/r-1?x=1"),
    ("//evil", "/"),
    ("/\\evil", "/"),
    ("https://evil", "/"),
    ("/\tevil", "/"),
    ("", "/"),
])  # fmt: skip
def test_safe_next(given_next: str, led_to: str) -> None:
    assert safe_next(given_next) == led_to
