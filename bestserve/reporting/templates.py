"""What the report and the page are written with: templates, and how values and columns read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from bestserve.reporting.chart import Chart
from bestserve.results.headings import HEADINGS
from bestserve.results.ranking import Ranking

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from bestserve.reporting.fleet import Diagram


@cache
def environment() -> Environment:
    """Return the environment of all templates; what they are given is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("bestserve", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    found.filters |= {"cell": cell, "heading": heading, "svg": picture, "flow_svg": flow_picture}
    found.tests["numeric_in"] = lambda name, records: numeric(records, name)
    return found


def asset(name: str) -> str:
    """Return a text file of the package's data."""
    return (resources.files("bestserve") / "data" / name).read_text(encoding="utf-8")


def picture(chart: Chart, width: int = 0) -> Markup:
    """Return a chart as an SVG element, whose texts are escaped."""
    from markupsafe import Markup

    from bestserve.reporting.svg import WIDE, svg

    return Markup(svg(chart, width or WIDE))


def flow_picture(diagram: Diagram, width: int = 0) -> Markup:
    """Return a fleet's flows as an SVG element, whose texts are escaped."""
    from markupsafe import Markup

    from bestserve.reporting.svg import WIDE, flow_svg

    return Markup(flow_svg(diagram, width or WIDE))


def pictures_page(charts: Sequence[Chart]) -> str:
    """Return charts below each other as one HTML page that needs no network and runs no script."""
    from markupsafe import Markup

    template = environment().get_template("report/pictures.html.j2")
    style = Markup(asset("report/shared.css") + asset("report/report.css"))  # our own files
    return template.render(charts=charts, style=style)


def headline(ranking: Ranking) -> str:
    """Return the answer in one sentence."""
    best = ranking.best
    return (
        f"{best.strategy} carries {best.goodput:.3g} requests per second on {best.gpus} of "
        f"{ranking.problem.gpus} GPUs ({best.goodput_per_gpu:.3g} per GPU)."
    )


def heading(name: str) -> str:
    """Return a field's name as a column heading."""
    if name in HEADINGS:
        return HEADINGS[name][:1].upper() + HEADINGS[name][1:]
    text = name.replace("_ms", " [ms]").replace("_", " ")
    for word in ("ttft", "tpot", "e2el", "gpus", "gpu"):
        shown = {"gpus": "GPUs", "gpu": "GPU"}.get(word, word.upper())
        text = " ".join(shown if w == word else w for w in text.split(" "))
    return text[:1].upper() + text[1:]


def cell(value: Any) -> str:
    """Return a value as a person reads it: four digits, SI prefixes from 10⁶, blank for absent."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def numeric(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Return whether a column holds numbers only, so that it is set to the right."""
    values = [r[name] for r in records]
    return any(v is not None for v in values) and all(
        isinstance(v, int | float | None) and not isinstance(v, bool) for v in values
    )
