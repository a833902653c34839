"""`toolchain config`: which settings are in force, and where did each come from?"""

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit_json, emit_table

app = new_app("The toolchain's own settings.")


@app.callback()
def config() -> None:
    """The toolchain's own settings; what a build does stands in its recipe."""


@app.command()
def show(as_json: JsonOption = False) -> None:
    """Every setting's value with its origin: default, file, environment or flag."""
    from toolchain.config import SETTINGS, load_config

    values = load_config()
    if as_json:
        emit_json(values)
    else:
        rows = [(each.key, values[each.key].value or "-", values[each.key].origin, each.what) for each in SETTINGS]
        emit_table(("setting", "value", "origin", "what it is"), rows)
