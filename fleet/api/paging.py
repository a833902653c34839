"""How are long lists handed out, page by page, so that rows added meanwhile are neither lost nor repeated?

A page is {items, next}: `next` is the cursor of the following page, null on the last one. A cursor names the last item
seen, not a position.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from fleet.errors import InvalidError

T = TypeVar("T")
Row = TypeVar("Row")

Limit = Annotated[int, Query(ge=1, le=500, description="items per page")]
Cursor = Annotated[str | None, Query(max_length=100, description="`next` of the page before")]


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None


def page(rows: Sequence[Row], limit: int, show: Callable[[Row], T], cursor: Callable[[Row], object]) -> Page[T]:
    """One page of rows that were read with a limit of `limit` + 1: the one too many says that more follows."""
    shown = rows[:limit]
    return Page(items=[show(row) for row in shown], next=str(cursor(shown[-1])) if len(rows) > limit else None)


def number(cursor: str | None) -> int | None:
    """A cursor that names a row by number. Raises InvalidError."""
    if cursor is None:
        return None
    if not cursor.isdecimal() or len(cursor) > 18:
        raise InvalidError(f"{cursor!r} is not a cursor of this list")
    return int(cursor)
