"""What does the table of steps in docs/runtime/processing.md say? `python -m runtime.processing.page` prints it."""

from runtime.processing.catalogue import STEPS
from runtime.processing.options import Option

_HEADINGS = {"pre": "### Before the network (`pre`)", "scores": "### Scores (`post`)", "decode": "### Answers (last in `post`)"}


def tables() -> str:
    """Markdown: one table for each place a step may have."""
    parts = []
    for place, heading in _HEADINGS.items():
        rows = [
            f"| `{one.name}` | {one.does} | {'<br>'.join(map(_option, one.options))} |"
            for one in STEPS.values()
            if one.place == place
        ]
        parts.append("\n".join([heading, "", "| step | what it does | options |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _option(option: Option) -> str:
    values = " or ".join(f"`{choice}`" for choice in option.choices) or f"{option.kind} {option.bounds()}".strip()
    default = "needed" if option.default is None else f"default `{str(option.default).lower()}`"
    return f"`{option.name}`: {option.meaning}; {values}; {default}"


if __name__ == "__main__":
    print(tables(), end="")  # noqa: T201  what it is for
