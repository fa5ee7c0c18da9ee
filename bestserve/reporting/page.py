"""The report as one HTML page that needs no network, and the report object users hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestserve._version import __version__
from bestserve.host.extras import require
from bestserve.host.writing import write_text
from bestserve.reporting.content import Content, Progress, gather
from bestserve.reporting.matplotlib_charts import save_figures
from bestserve.reporting.templates import asset, environment, heading, headline
from bestserve.results.document import Document
from bestserve.results.ranking import Ranking
from bestserve.results.schedule import Schedule
from bestserve.specs.problem import Problem

TOP = 15
"""Strategies in the page's table; the others are in its collapsed part."""
MONEY = ("tokens_per_second", "usd_per_million_tokens")
"""Columns of that table which are there where prices and tokens are known."""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report: `html()`, `save(path)`, `figures(folder)`."""

    content: Content

    def html(self) -> str:
        """Return the page. MissingExtraError says what to install."""
        return render(self.content)

    def save(self, path: str | Path) -> Path:
        """Write the page and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        return write_text(target, self.html())

    def figures(self, folder: str | Path) -> list[Path]:
        """Write all figures as PNG and SVG with their data as CSV; return the paths."""
        return save_figures(self.content.charts, folder)

    def _repr_html_(self) -> str:
        from html import escape

        # A page of its own: the notebook's styles and scripts stay out of it, and it out of theirs.
        page = escape(self.html(), quote=True)
        size = 'width="100%" height="900"'
        return f'<iframe title="bestserve report" {size} srcdoc="{page}"></iframe>'


def report(
    problem: Problem,
    *,
    ranking: Ranking | None = None,
    axes: Mapping[str, Sequence[float | str]] | None = None,
    allocation: Document | None = None,
    schedule: Schedule | None = None,
    quick: bool = False,
    verify: bool = True,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Answer all questions about a problem and return the report.

    Parameters
    ----------
    ranking : an earlier `bs.rank(problem)`, to save the work
    axes : of the winner's map, as for `bs.sweep`; default: mean lengths by factors of ¼ to 4
    allocation, schedule : answers of `bs.allocate` and `bs.schedule` to show beside
    quick : leave out winner's map and uncertainty, which take most of the time
    verify : simulate what carries low trust

    Raises InputError (no objectives), InfeasibleError (nothing feasible).
    """
    return Report(
        gather(
            problem,
            ranking=ranking,
            axes=axes,
            allocation=allocation,
            schedule=schedule,
            quick=quick,
            verify=verify,
            jobs=jobs,
            progress=progress,
        )
    )


def render(content: Content) -> str:
    """Return the page of a report's content."""
    require("the report", "jinja2")
    from markupsafe import Markup

    template = environment().get_template("report/report.html.j2")
    # Our own file; all else is escaped by the template.
    return template.render(
        c=content,
        version=__version__,
        top=TOP,
        style=Markup(asset("report/shared.css") + asset("report/report.css")),
        facts=problem_facts(content.problem),
        headline=headline(content.ranking),
        money=[name for name in MONEY if name in content.ranking.records()[0]],
    )


def problem_facts(problem: Problem) -> list[tuple[str, str]]:
    """Return the problem as names and values."""
    w = problem.workload
    engine = problem.engine if isinstance(problem.engine, str) else problem.engine.name
    facts = [
        ("Model", _name(problem.model)),
        ("GPUs", f"{problem.gpus} × {_name(problem.hardware)}"),
        ("Engine", engine),
        ("Objectives", str(problem.slo)),
    ]
    if problem.step_time is not None:
        facts[0:2] = [("Step time", str(problem.step_time)), ("Instances", str(problem.gpus))]
    if w.trace is not None:
        facts.append(("Trace", Path(w.trace).name))
    for c in w.classes:
        lengths = f"{_law(c.input_len)} in, {_law(c.output_len)} out"
        facts.append((f"Class {c.name}", f"{c.share:.0%}: {lengths}"))
    if w.input_len is not None:
        facts += [("Prompts", _law(w.input_len)), ("Answers", _law(w.output_len))]
    arrivals = "Poisson" if w.burstiness == 1 else f"gamma, burstiness {w.burstiness:g}"
    facts.append(("Arrivals", arrivals))
    if w.prefix_cache_hit:
        facts.append(("Prefix cache", f"{w.prefix_cache_hit:.0%} of prompt tokens"))
    for name in ("precision", "max_num_seqs", "max_num_batched_tokens", "calibration"):
        value = getattr(problem, name)
        if value is not None:
            facts.append((heading(name), str(value)))
    return facts


def _name(value: Any) -> str:
    return value if isinstance(value, str) else str(getattr(value, "name", value))


def _law(law: Any) -> str:
    if law.kind == "fixed":
        return f"{law.tokens:,} tokens"
    spread = f", coefficient of variation {law.scv**0.5:.2g}"
    return f"{law.kind}, mean {law.mean_tokens:,.0f} tokens{spread}"
