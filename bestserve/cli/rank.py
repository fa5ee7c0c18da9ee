"""`bestserve rank`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from bestserve.cli.flags import Count, Format, Many
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit, emit_explained, emit_records
from bestserve.cli.plots import Plots, check_plots, save_plots
from bestserve.cli.question import Question
from bestserve.cli.talk import progress, talk
from bestserve.errors import InputError

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem

GIB = 1.073741824
"""10⁹ bytes in a GiB."""

COLUMNS = (
    "rank",
    "hardware",
    "strategy",
    "gpus",
    "goodput",
    "goodput_per_gpu",
    "usd_per_million_tokens",
    "ttft_ms",
    "tpot_ms",
    "utilisation",
    "binding",
    "trust",
    "method",
    "confirmed",
    "tied",
)


def rank(
    options: ProblemOptions | None = None,
    *,
    format: Format = "table",
    top: Annotated[int, Count] = 12,
    limits: bool = False,
    verify: bool = True,
    compare_routing: Annotated[list[str] | None, Many] = None,
    compare_offloading: Annotated[list[float] | None, Many] = None,
    by: Literal["goodput", "smooth"] = "goodput",
    wait_cost: float | None = None,
    plot: Plots = None,
) -> int:
    """Rank all strategies that fit the GPUs by goodput, best first.

    Parameters
    ----------
    options
        the problem; --hardware a,b,c ranks each GPU and puts the best side by side
    top
        rows shown in the table (json, csv and html have all)
    limits
        show every choice of batch limits, not only the best one of each layout
    verify
        simulate the strategies that decide at their goodput
    compare_routing
        rank under each of these routings and say what they bring: random prefix_aware
    compare_offloading
        rank with each of these sizes of host memory for KV blocks, of each instance [GiB]: 0 200
    by
        goodput, or smooth: the tokens that readers get less the cost of their waiting
    wait_cost
        of smooth goodput: tokens that a second of waiting is worth; default: those read in it
    """
    check_plots(plot)
    options = options or ProblemOptions()
    if by == "smooth":
        if plot or compare_routing or compare_offloading or _several(options):
            raise InputError(
                "--by smooth ranks on one GPU: leave out --plot, --compare-… and all "
                "--hardware but one"
            )
        return _by_smooth(options, wait_cost, format)
    if wait_cost is not None:
        raise InputError("--wait-cost is of smooth goodput: add --by smooth")
    if compare_routing or compare_offloading:
        if plot:
            raise InputError("--plot draws one ranking: leave out --compare-…")
        compared = compare_routing or [], compare_offloading or []
        return _over_caches(options, compared, format)
    if _several(options):
        if plot:
            raise InputError("--plot draws one ranking: give one --hardware")
        return _across(options, format, verify)
    from bestserve import api
    from bestserve.results.ranking import best_of_layouts

    problem = options.build()
    with progress("ranking") as say:
        ranking = api.rank(problem, verify=verify, progress=say)
    if not ranking.table and format != "json":
        talk(ranking.explain())
        return 3
    if format in ("table", "md"):
        rows = ranking.records()
        if not limits:
            rows = [rows[place] for place, _ in best_of_layouts(ranking.table)]
        shown = rows[:top]
        what = "strategies" if limits else "layouts, each with its best limits"
        title = f"{len(ranking.table)} strategies ranked, {len(shown)} of {len(rows)} {what}"
        emit_records(shown, format, title, COLUMNS)
        print()
        print(ranking.explain())
    else:
        emit(ranking, format, question=Question("rank", problem, {"verify": verify}))
    if ranking.table:
        save_plots([ranking], plot)
    talk(f"{ranking.considered:,} strategies considered in {ranking.seconds:.2f} s")
    if ranking.table and format == "table":
        best = ranking.best.strategy
        talk(f"next, with the same flags: bestserve explain {best}, launch {best}, report")
    return 0 if ranking.table else 3


def _several(options: ProblemOptions) -> bool:
    return isinstance(options, ProblemOptions) and "," in (options.hardware or "")


def _across(options: ProblemOptions, format: Format, verify: bool) -> int:
    """Rank several GPUs and print the best strategy of each, cheapest tokens first."""
    from bestserve import api
    from bestserve.errors import InfeasibleError

    if format == "json":
        raise InputError("several GPUs are no single answer: take csv, or ask one by one")
    names = [name.strip() for name in (options.hardware or "").split(",") if name.strip()]
    rows: list[dict[str, Any]] = []
    problem: Problem | None = None
    with progress("ranking") as say:
        for name in names:
            if problem is None:
                problem = replace(options, hardware=name).build()
            try:
                found = api.rank(problem.replaced(hardware=name), verify=verify, progress=say)
                rows.append({"hardware": name, **found.best.records()[0]})
            except InfeasibleError as error:
                talk(f"{name}: {error}")
    if not rows:
        return 3
    unpriced = [row["hardware"] for row in rows if "usd_per_million_tokens" not in row]
    rows.sort(key=lambda r: (r.get("usd_per_million_tokens", float("inf")), -r["goodput_per_gpu"]))
    emit_records(rows, format, "Best strategy of each GPU", COLUMNS)
    if unpriced:
        talk(f"no price known of {', '.join(unpriced)}: see bestserve catalog prices")
    return 0


def _by_smooth(options: ProblemOptions, wait_cost: float | None, format: Format) -> int:
    """Rank by the tokens that readers get, less their waiting."""
    from bestserve import api

    problem = options.build()
    with progress("ranking") as say:
        found = api.rank_smooth(problem, wait_cost=wait_cost, progress=say)
    asked = {"by": "smooth", "wait_cost": wait_cost}
    title = f"{len(found.table)} strategies by smooth goodput"
    emit_explained(found, format, title, question=Question("rank", problem, asked))
    return 0


def _over_caches(
    options: ProblemOptions, compared: tuple[list[str], list[float]], format: Format
) -> int:
    """Rank under several routings and sizes of host memory, and say what each brings."""
    from bestserve.answers.caching import cache_plans

    routings, gibibytes = compared
    if options.kv_offloading_bandwidth is not None and options.kv_offloading_size is None:
        # the bandwidth alone says how host memory is read, the sizes compared how large it is
        options = replace(options, kv_offloading_size=max([*gibibytes, 0.0]) or None)
    problem = options.build()
    sizes = [GIB * size for size in gibibytes]
    with progress("ranking") as say:
        plans = cache_plans(problem, routings or [problem.routing], sizes, say)
    asked = {"compare_routing": routings, "compare_offloading": gibibytes}
    emit_explained(
        plans,
        format,
        "Best strategy of each routing and size of host memory",
        question=Question("rank", problem, asked),
    )
    return 0
