"""How do results reach stdout, and progress stderr?"""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec


def say(line: str) -> None:
    """Progress, for people; never on stdout, which belongs to the data."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def emit(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def emit_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2).decode() + "\n")


def emit_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; the last one runs on. A head of empty names is left out."""
    lines = [*([list(head)] if any(head) else []), *([str(cell) for cell in row] for row in rows)]
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(head))]
    for line in lines:
        emit("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
