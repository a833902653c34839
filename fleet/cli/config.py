"""`fleet config`: what is set, and by whom."""

from fleet.cli.options import ConfigOption, HomeOption, JsonOption, new_app, open_config
from fleet.cli.output import emit_json, emit_table

app = new_app("Every setting with its origin.")


@app.callback()
def group() -> None:
    """Every setting with its origin."""


@app.command()
def show(*, config: ConfigOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Every value with its origin: default, fleet.toml, environment or flag."""
    _, settings = open_config(config, home)
    if as_json:
        emit_json(settings)
    else:
        emit_table(("key", "value", "origin"), [(one.key, _spelled(one.value), one.origin) for one in settings])


def _spelled(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
