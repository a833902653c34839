"""How does a template become a page that holds everything it needs?"""

from typing import Any

from markupsafe import Markup

from toolchain.report import marks, search, wording

_FILTERS = (
    "count", "drop", "drop_interval", "energy", "latency", "listed", "moment", "quality", "quality_interval", "seconds", "sentence",
    "short", "size", "speed", "speed_interval", "splits",
)  # fmt: skip


def render_page(template: str, **context: Any) -> str:
    """Fill a template of `templates/`. Every value is escaped unless it is markup that svg.py made."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # a build from the cache writes no page

    loader = PackageLoader("toolchain.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update({name: getattr(wording, name) for name in _FILTERS})
    environment.globals.update(
        glyph=marks.glyph, mark_key=marks.mark_key, series=marks.series, setting_text=search.setting_text, share=wording.share,
        several=wording.several, tip=marks.tip, value_text=search.value_text, worsening_of=wording.worsening,
    )  # fmt: skip
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js"))
    return environment.get_template(template).render(style=style, script=script, **context)
