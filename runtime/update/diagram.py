"""What does the update's state machine look like? Drawn from the table: `python -m runtime.update.diagram > docs/update-states.md`."""

import sys

from runtime.contract.deployment import DeploymentState as S
from runtime.update.table import COUNTED, MAX_INTERRUPTIONS, RESUME, TRANSITIONS

_HEAD = """# The states of an update

Drawn from `runtime/update/table.py` by `python -m runtime.update.diagram`; a test holds the two together.

"""


def draw() -> str:
    """The table as a Markdown page with a Mermaid diagram."""
    edges: dict[tuple[S, S], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        edges.setdefault((before, after), []).append(event.value)
    lines = [f"    {before.value} --> {after.value}: {', '.join(events)}" for (before, after), events in edges.items()]
    counted = ", ".join(state.value for state in S if state in COUNTED)
    resumed = ", ".join(state.value for state in RESUME)
    return (
        f"{_HEAD}```mermaid\nstateDiagram-v2\n    [*] --> {S.IDLE.value}\n" + "\n".join(lines) + "\n```\n\n"
        f"After a power loss these states resume as themselves: {resumed}.\n\n"
        f"Interruptions are counted in {counted}; the count of {MAX_INTERRUPTIONS} gives the update up (`exhausted`).\n"
        "The count starts anew in probation, and an orderly stop is no interruption.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(draw())
