"""What a device's condition amounts to, worst first."""

import pytest

from fleet.domain.health import Condition, judge_health


@pytest.mark.parametrize(
    ("condition", "level", "reasons"),
    [
        (Condition(), "ok", []),
        (Condition(online=False), "offline", ["not connected"]),
        (Condition(online=False, has_reported=False, clock_synced=False), "offline", ["never connected"]),
        (Condition(failures={"digits": "trust.digest_mismatch"}), "attention", ["trust.digest_mismatch"]),
        (Condition(drifting=("digits",)), "attention", ["drift on digits"]),
        (Condition(clock_synced=False), "attention", ["clock"]),
        (
            Condition(failures={"b": "x.y", "a": "u.v"}, drifting=("c",), clock_synced=False),
            "attention",
            ["u.v", "x.y", "drift on c", "clock"],
        ),
        (Condition(online=False, drifting=("c",)), "offline", ["not connected", "drift on c"]),
        (Condition(revoked=True, online=False, drifting=("c",)), "revoked", ["revoked"]),
    ],
)
def test_level_and_reasons(condition: Condition, level: str, reasons: list[str]) -> None:
    health = judge_health(condition)
    assert health.level == level
    assert len(health.reasons) == len(reasons)
    for reason, words in zip(health.reasons, reasons, strict=True):
        assert words in reason
