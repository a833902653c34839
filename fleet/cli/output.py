"""How do results reach stdout, and progress stderr?"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
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
    """Columns as wide as their widest cell; the last one runs on."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        emit("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def moment(unix_ms: int | None) -> str:
    """A time for people, in UTC like every time of the service; "-" for none."""
    return "-" if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
