"""Which word and which colour does each state get?

Five tones with one meaning each, on every page: ok (as it should be), busy (moving by itself), warn (wants a look or a
decision), bad (failed, or being undone), idle (nothing going on, or no word from it). The tone always comes with a word
and a shape of its own, never as colour alone.
"""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["ok", "busy", "warn", "bad", "idle"]


@dataclass(frozen=True)
class Badge:
    text: str
    tone: Tone
    note: str = ""


PRESENCE = {True: Badge("Online", "ok"), False: Badge("Offline", "idle")}
REVOKED = Badge("Revoked", "bad", "its certificate is no longer accepted")

_INSTALLED: dict[str, Badge] = {
    "fetching": Badge("Fetching", "busy"),
    "verifying": Badge("Verifying", "busy"),
    "testing": Badge("Self-test", "busy"),
    "switching": Badge("Switching", "busy"),
    "probation": Badge("Probation", "busy", "serves the new version, may still go back"),
    "committing": Badge("Committing", "busy"),
    "rolling_back": Badge("Rolling back", "bad"),
    "reporting": Badge("Reporting", "busy"),
}
_OUTCOMES: dict[str, Badge] = {
    "none": Badge("Nothing installed", "idle"),
    "succeeded": Badge("Up to date", "ok"),
    "refused": Badge("Update refused", "bad", "the old version never stopped serving"),
    "rolled_back": Badge("Rolled back", "bad", "the old version serves again"),
}
_JOBS: dict[str, Badge] = {
    "pending": Badge("Waiting", "idle", "not told yet"),
    "dispatched": Badge("Updating", "busy", "told, has not reported the end"),
    "succeeded": Badge("Updated", "ok"),
    "failed": Badge("Failed", "bad"),
    "returning": Badge("Going back", "warn", "told to serve the previous version again"),
    "returned": Badge("Went back", "warn", "serves the previous version again"),
    "return_failed": Badge("Cannot go back", "bad"),
    "withdrawn": Badge("Withdrawn", "idle", "revoked, or claimed by a later rollout"),
}
NEVER_TOLD = Badge("Not told", "idle", "the rollout ended before its stage")
_VERDICTS: dict[str, Badge] = {"pass": Badge("Pass", "ok"), "hold": Badge("Hold", "warn"), "fail": Badge("Fail", "bad")}
_ALERTS: dict[str, Badge] = {
    "critical": Badge("Critical", "bad"),
    "error": Badge("Error", "bad"),
    "warning": Badge("Warning", "warn"),
    "info": Badge("Info", "idle"),
}


def installed(state: str, outcome: str) -> Badge:
    """How a model's newest update stands on a device; once it is over, how it ended."""
    return _INSTALLED.get(state) or _OUTCOMES.get(outcome) or unknown(outcome)


def job(state: str) -> Badge:
    """Where the update of one device within a rollout stands."""
    return _JOBS.get(state) or unknown(state)


def verdict(decision: str) -> Badge:
    return _VERDICTS.get(decision) or unknown(decision)


def alert(severity: str) -> Badge:
    return _ALERTS.get(severity) or unknown(severity)


def unknown(word: str) -> Badge:
    """A word a newer peer may send: shown as it is, without a claim about it."""
    return Badge(word.replace("_", " ").capitalize() or "Unknown", "idle")
