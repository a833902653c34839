"""Where does a deployment live on the device? In the lane of its model and role.

A lane has two slots, its own updates and its own way back: what happens in a shadow's lane leaves the others alone.
"digits" is the active lane of the model digits, "digits+shadow" its shadow's; a name cannot hold a "+".
"""

from collections.abc import Iterable
from typing import get_args

from runtime.contract.deployment import Role

ROLES: tuple[Role, ...] = get_args(Role)
_MARK = "+"


def lane_of(model: str, role: Role = "active") -> str:
    return model if role == "active" else f"{model}{_MARK}{role}"


def parts_of(lane: str) -> tuple[str, Role]:
    """Model and role of a lane; the opposite of `lane_of`."""
    model, _, mark = lane.partition(_MARK)
    return model, next((role for role in ROLES if role == mark), "active")


def in_order(lanes: Iterable[str]) -> list[str]:
    """By name, active lanes first: what answers is looked after before what watches."""
    return sorted(lanes, key=lambda lane: (_MARK in lane, lane))
