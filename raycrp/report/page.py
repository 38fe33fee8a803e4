"""The page: contents filled into the template, everything else kept out of it."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from raycrp.report.contents import Contents

TEMPLATE = "template.html.j2"
_VERDICT_SIGNS = {
    "right": "\N{HEAVY CHECK MARK}",
    "right but for stereo": "\N{ALMOST EQUAL TO}",
    "wrong": "\N{MULTIPLICATION X}",
    "invalid": "\N{WARNING SIGN}\N{VARIATION SELECTOR-15}",
    "empty": "\N{EMPTY SET}",
}


def render_page(contents: Contents) -> str:
    """The whole report as one HTML text that needs no network.

    Args:
        contents: What it shows; all text in it is escaped, only drawings are taken as they are.
    """
    return _template().render(page=contents, signs=_VERDICT_SIGNS)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("raycrp.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = Markup
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["share"] = lambda number: f"{number:.3f}"
    environment.filters["percent"] = lambda number: f"{100 * number:.3g} %"
    environment.filters["duration"] = _duration
    environment.filters["words"] = lambda name: name.replace("_", " ")
    return environment.get_template(TEMPLATE)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
