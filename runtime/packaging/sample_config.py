"""What does a runtime.toml look like that names every key, its default and its bounds, and changes nothing?

Drawn from the classes of `runtime.config`, so that it cannot fall behind them.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from runtime.config import Config

WIDTH = 118
HEAD = """\
# Configuration of the Edgewright device runtime. Every key is here with its default: remove the "#" before one to change it,
# then `systemctl restart edgewright-runtime`. `edgewright-runtime config show` prints what is in force and where it came from.
# Also by environment, EDGEWRIGHT_RUNTIME_SECTION_KEY, and by flag, --set section.key=value. An unknown key is an error.
"""


def sample_config(config: Config | None = None) -> str:
    """The text of the file. A key is a line that begins with `#` and its name: with the `#` removed it sets the default."""
    config = config or Config()
    return "\n".join([HEAD, *(_section(name, getattr(config, name)) for name in config.__struct_fields__)])


def _section(name: str, group: msgspec.Struct) -> str:
    described = inspect.type_info(type(group))
    assert isinstance(described, inspect.StructType)
    lines = [f"[{name}]", *_comment(type(group).__doc__ or "")]
    for field in described.fields:
        bounds = "; ".join(_bounds(field.type))
        setting = f"#{field.name} = {toml_value(msgspec.to_builtins(getattr(group, field.name)))}"
        lines.append(f"{setting:<40}  # {bounds}" if bounds else setting)
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML spells it. Raises TypeError for what TOML has no word for."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    raise TypeError(f"a default of the type {type(value).__name__} cannot be written as TOML: {value!r}")


def _comment(docstring: str) -> Iterator[str]:
    """The words of a docstring as comment lines; "# " sets them apart from keys."""
    for paragraph in docstring.split("\n\n"):
        words = " ".join(paragraph.split())
        # msgspec gives a Struct without a docstring its signature for one: no help to a reader.
        if words:
            yield from (f"# {line}" for line in textwrap.wrap(words, WIDTH))


def _bounds(kind: inspect.Type) -> Iterator[str]:
    """What may stand there, as far as the type says so."""
    if isinstance(kind, inspect.Metadata):
        yield from _bounds(kind.type)
    elif isinstance(kind, inspect.LiteralType):
        yield " | ".join(str(value) for value in kind.values)
    elif isinstance(kind, inspect.CollectionType):
        yield from (f"each {bound}" for bound in _bounds(kind.item_type))
    elif isinstance(kind, inspect.IntType | inspect.FloatType):
        at_least, at_most = kind.ge, kind.le
        if at_least is not None and at_most is not None:
            yield f"{at_least:,} to {at_most:,}"
        elif at_least is not None:
            yield f"{at_least:,} or more"
        elif at_most is not None:
            yield f"{at_most:,} or less"
