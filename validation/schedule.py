"""Schedules held to the simulator on three loads, and beside other policies played there too.

    python validation/schedule.py        # writes validation/schedule.md, some minutes

Two loads come from traces beside the checkout (../shared/traces): without them they are named as
missing. Llama-3.1-8B, small GPUs: a schedule's grain is an instance.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import bestserve as bs
from bestserve.arrays import Ints
from bestserve.fleet.schedule.answer import Case, case_of, plan
from bestserve.fleet.schedule.failures import at_least, up_share
from bestserve.fleet.schedule.forecasts import forecasts
from bestserve.fleet.schedule.playing import Manner, by_window, draw, play
from bestserve.fleet.schedule.policies import compared, compared_splits, lateness
from bestserve.fleet.schedule.programme import cheapest
from bestserve.fleet.schedule.ratio import rule
from bestserve.fleet.schedule.stints import Broken
from bestserve.results.schedule import clock

ROOT = Path(__file__).parents[1]
DAY = ROOT / "docs" / "how-to" / "day.csv"
TRACES = ROOT.parent / "shared" / "traces"
BETWEEN, REPAIR = 100.0, 7200.0
"""GPU-hours between failures and repair time [s]: far worse than real, so that a day shows it."""

ROOMY = 0.3
"""Headroom of a second plan [1]."""

CHAT = bs.Workload(input_len="lognormal:1000,1", output_len="lognormal:250,1")


@dataclass(frozen=True)
class Study:
    """A load with its problem, and what an instance of each pool is."""

    name: str
    told: str
    problem: bs.Problem
    load: Path | None
    strategy: str
    options: bs.ScheduleOptions


def problem(
    workload: bs.Workload, gpus: int, hardware: str = "l40s", ttft: int = 1000
) -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware=hardware,
        gpus=gpus,
        workload=workload,
        slo=f"ttft:{ttft} tpot:50",
    )


def studies(folder: Path) -> list[Study]:
    """Return the loads that are there."""
    found = [
        Study(
            "a stated day",
            "docs/how-to/day.csv, eight windows of three hours, scaled to a peak of 10 req/s",
            problem(CHAT, 32),
            DAY,
            strategy,
            bs.ScheduleOptions(peak_rate=10, headroom=0.05),
        )
        for strategy in ("1m-tp1", "1p1d-tp1")
    ]
    azure = TRACES / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv"
    if azure.is_file():
        found += [
            Study(
                f"Azure 2023, conversation, planned as {gaps}",
                "the hour itself, replayed request by request; windows of five minutes",
                problem(bs.Workload(trace=str(azure)), 64, "a10g", 2000),
                None,
                "1m-tp1",
                bs.ScheduleOptions(window=300, headroom=headroom, start_time=60, gaps=gaps),
            )
            for headroom, gaps in ((0.0, "recorded"), (0.1, "poisson"))
        ]
    servegen = TRACES / "servegen"
    if (servegen / "language_m-small_chunk-5-trace.csv").is_file():
        for part, source in (("trace.csv", "chunk-5"), ("dataset.json", "chunk-2")):
            shutil.copy(servegen / f"language_m-small_{source}-{part}", folder / f"five-{part}")
        found += [
            Study(
                "ServeGen, m-small client 5",
                "the last day of two weeks, rates of client 5 scaled to a peak of 30 req/s, "
                "lengths of client 2; windows of ten minutes, Poisson inside",
                problem(bs.Workload(trace=str(folder)), 64, "a10g", 2000),
                None,
                strategy,
                bs.ScheduleOptions(last=86_400, peak_rate=30, headroom=0.05),
            )
            for strategy in ("1m-tp1", "1p1d-tp1")
        ]
    for wanted in (azure, servegen):
        if not wanted.exists():
            print(f"{wanted.name} is missing beside the checkout: left out", file=sys.stderr)
    return found


def others(study: Study, case: Case, counts: Ints) -> list[tuple[str, Ints, float]]:
    """Return name, counts and lateness [s] of the plan and of other policies."""
    over = replace(study.options, headroom=0.0, slo_over="day")
    daily = plan(case_of(study.problem, study.load, study.strategy, over)).counts
    terms, load = case.terms, case.streams[0].load
    deployment = case.offers[0].deployment
    ratio = rule(deployment, load.lengths, load.kinds) if len(deployment.pools) == 2 else None
    history = np.array([s.history.rates for s in case.streams])
    day = max(round(86_400 / float(np.median(load.durations))), 1)
    policies = compared(terms, counts, forecasts(history, day, terms.windows), ratio)
    roomy = cheapest(replace(terms, headroom=ROOMY)).counts
    return [
        ("plan", counts, 0.0),
        (f"plan with {ROOMY:.0%} headroom", roomy, 0.0),
        ("plan, objectives over the day, no headroom", daily, 0.0),
        *((p.name, p.counts, p.wait) for p in policies),
    ]


@dataclass(frozen=True)
class Line:
    """What a policy does in the simulator."""

    name: str
    gpu_hours: float
    within: float
    worst: float
    worst_at: str
    holding: str


def lines(study: Study) -> tuple[list[Line], float, int]:
    """Play the plan and the policies on the same requests."""
    case = case_of(study.problem, study.load, study.strategy, study.options)
    began = time.perf_counter()
    planned = plan(case)
    seconds = time.perf_counter() - began
    load, deployment, terms = case.streams[0].load, case.offers[0].deployment, case.terms
    arrived = draw(load, 1)
    rows = []
    for name, counts, late in others(study, case, planned.counts):
        if name.startswith("bound"):
            continue
        found = play(deployment, load, counts, arrived, Manner(late=late))
        played = by_window(arrived, terms.windows, found, deployment.target)
        least = np.minimum(played.met["ttft"], played.met["tpot"])
        worst = int(np.argmin(least))
        error = 2 * np.sqrt(0.09 / np.maximum(played.requests, 1))
        hours = float((terms.pools.gpus @ counts) @ terms.durations / 3600)
        rows.append(
            Line(
                name,
                hours,
                float(played.met["joint"] @ played.requests / played.requests.sum()),
                float(least[worst]),
                clock(load.windows[worst].start),
                f"{int(np.sum(least >= 0.9 - error))} of {terms.windows}",
            )
        )
    return rows, seconds, arrived.times.size


def table(rows: list[Line]) -> list[str]:
    head = [
        "| policy | GPU-hours serving | within all objectives | worst window | windows that hold |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    return head + [
        f"| {r.name} | {r.gpu_hours:,.1f} | {r.within:.2%} | {r.worst:.1%} at {r.worst_at} | "
        f"{r.holding} |"
        for r in rows
    ]


def fixed(gpus: int) -> list[str]:
    """Return the table of a fleet of fixed size whose roles change, played too."""
    options = bs.ScheduleOptions(objective="load", peak_rate=10)
    case = case_of(problem(CHAT, gpus), DAY, "1p1d-tp1", options)
    planned = plan(case)
    load, deployment, terms = case.streams[0].load, case.offers[0].deployment, case.terms
    ratio = rule(deployment, load.lengths, load.kinds)
    policies = compared_splits(terms, gpus, planned.counts, ratio)
    arrived = draw(load, 1)
    rows = ["| policy | within capacity | simulated, within all objectives | worst window |",
            "| --- | ---: | ---: | ---: |"]  # fmt: skip
    entries = [("plan", planned.counts, options.switch_time, planned.objective)]
    entries += [(p.name, p.counts, p.wait, p.carried.share) for p in policies]
    for name, counts, wait, share in entries:
        found = play(deployment, load, counts, arrived, Manner(late=wait))
        played = by_window(arrived, terms.windows, found, deployment.target)
        within = float(played.met["joint"] @ played.requests / played.requests.sum())
        rows.append(f"| {name} | {share:.2%} | {within:.2%} | {played.met['joint'].min():.1%} |")
    return rows


def solving(folder: Path) -> list[str]:
    """Return the times to plan a day and a week of the busiest client."""
    rows = [
        "| what | windows | instances at once | time [s] | gap |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    servegen = folder / "five-trace.csv"
    if not servegen.is_file():
        return []
    for name, last, strategy, changes in (
        ("a day, collocated", 86_400, "1m-tp1", {}),
        ("a day, prefill and decode", 86_400, "1p1d-tp1", {}),
        ("the same, reserved GPUs", 86_400, "1p1d-tp1",
         {"objective": "money", "reserved_price": 0.5}),
        ("the same, least stay of an hour, four changes a window", 86_400, "1p1d-tp1",
         {"min_stay": 3600.0, "max_changes": 4}),
        ("a day on 40 GPUs, roles change", 86_400, "1p1d-tp1", {"objective": "load"}),
        ("a week, collocated", 604_800, "1m-tp1", {}),
        ("a week, prefill and decode", 604_800, "1p1d-tp1", {}),
        ("a week on 40 GPUs, roles change", 604_800, "1p1d-tp1", {"objective": "load"}),
    ):  # fmt: skip
        gpus = 40 if changes.get("objective") == "load" else 256
        asked = problem(bs.Workload(trace=str(folder)), gpus, "a10g", 2000)
        asked = asked.replaced(price_per_hour=1.0)
        options = bs.ScheduleOptions(last=last, peak_rate=60, headroom=0.05, **changes)  # type: ignore[arg-type]
        case = case_of(asked, None, strategy, options)
        began = time.perf_counter()
        found = plan(case)
        seconds = time.perf_counter() - began
        most = int(found.counts.sum(axis=0).max())
        rows.append(
            f"| {name} | {case.terms.windows:,} | {most} | {seconds:.1f} | {found.gap:.3%} |"
        )
    return rows


def stopping(study: Study) -> str:
    """Return a row: what running requests do when their instance stops."""
    case = case_of(study.problem, study.load, study.strategy, study.options)
    counts, load = plan(case).counts, case.streams[0].load
    deployment, arrived = case.offers[0].deployment, draw(load, 1)
    cells = []
    for moves in (False, True):
        found = play(deployment, load, counts, arrived, Manner(moves=moves))
        played = by_window(arrived, case.terms.windows, found, deployment.target)
        within = float(played.met["joint"] @ played.requests / played.requests.sum())
        longest = float(found.draining.max(initial=0.0))
        cells += [f"{within:.2%}", f"{longest:.0f}", f"{found.gpu_seconds / 3600:.2f}"]
    return f"| {study.name}, {study.strategy} | {' | '.join(cells)} |"


def failing() -> list[str]:
    """Return a table: the stated day with instances that fail, with spares and without."""
    rows = [
        "| plan | GPU-hours | as many up as needed | within all objectives, three draws |",
        "| --- | ---: | ---: | ---: |",
    ]
    for availability in (None, 0.99, 0.9999):
        options = bs.ScheduleOptions(
            peak_rate=10,
            headroom=0.05,
            gpu_hours_between_failures=BETWEEN,
            repair_time=REPAIR,
            availability=availability or 0.5,
        )
        case = case_of(problem(CHAT, 64), DAY, "1m-tp1", options)
        if availability is None:
            case = replace(case, terms=replace(case.terms, reliability=None))
        counts, load = plan(case).counts, case.streams[0].load
        deployment, arrived = case.offers[0].deployment, draw(load, 1)
        up = up_share(1, BETWEEN, REPAIR)
        enough = [
            at_least(int(k), int(n), up)
            for k, n in zip(case.terms.working[0], counts[0], strict=True)
        ]
        withins = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            down = Broken.drawn(int(counts.max()), (BETWEEN * 3600, REPAIR), (0.0, 86_400.0), rng)
            found = play(deployment, load, counts, arrived, Manner(broken=(down,)))
            played = by_window(arrived, case.terms.windows, found, deployment.target)
            withins.append(float(played.met["joint"] @ played.requests / played.requests.sum()))
        hours = float(counts[0] @ case.terms.durations / 3600)
        told = "no spares" if availability is None else f"spares for {availability:.2%}"
        shares = ", ".join(f"{share:.1%}" for share in withins)
        mean = float(np.average(enough, weights=case.terms.durations))
        rows.append(f"| {told} | {hours:,.0f} | {mean:.2%} | {shares} |")
    return rows


def late_or_slow(study: Study) -> list[str]:
    """Return what being late costs beside what slower starts cost."""
    case = case_of(study.problem, study.load, study.strategy, study.options)
    base = plan(case)
    times = replace(case.terms.times, start=2 * case.terms.times.start)
    slow = replace(case, terms=replace(case.terms, times=times))
    slower = plan(slow)
    one_late = lateness(case.terms, base.counts, case.terms.times.start)[1]
    return [
        f"- {study.name}, {study.strategy}: starts that take twice as long "
        f"({2 * case.terms.times.start:.0f} s) cost "
        f"{slower.objective / base.objective - 1:.2%} more GPU-hours; the same plan one window "
        f"late carries {one_late.carried.share:.2%} of the requests, {one_late.carried.worst:.1%} "
        f"in its worst window; if nobody is turned away {one_late.carried.without_backlog:.1%} "
        "find no backlog."
    ]


HEAD = """# Schedules in the simulator

Made by `python validation/schedule.py`. Llama-3.1-8B on L40S (recorded loads: A10G), vLLM, P90
TTFT 1 s (A10G: 2 s), P90 TPOT 50 ms; all rows of a load are played on the same requests. A window
holds where both shares are at least 90 %, up to twice their standard error. What comes late in a
policy comes late in its row.
"""


def main(target: Path) -> None:
    plan(case_of(problem(CHAT, 64), DAY, "1m-tp1", bs.ScheduleOptions()))  # loads the solver
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = [HEAD]
        found = studies(folder)
        for study in found:
            rows, seconds, requests = lines(study)
            parts += [
                f"## {study.name}, {study.strategy}",
                "",
                f"{study.told}; headroom {study.options.headroom:.0%}, starts take "
                f"{study.options.start_time:.0f} s. {requests:,} requests; planned in "
                f"{seconds:.2f} s.",
                "",
                *table(rows),
                "",
            ]
        parts += ["## Being late, and being slow", ""]
        parts += [line for study in found for line in late_or_slow(study)]
        parts += ["", "## Running requests of instances that stop", ""]
        parts += [
            "KV stays: they end where they are. KV moves: they go on elsewhere after the transfer "
            "(a prefill instance finishes its prompts). Within all objectives, longest drain [s], "
            "GPU-hours that draining takes.",
            "",
            "| load | stays: within | longest | GPU-h | moves: within | longest | GPU-h |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(stopping(study) for study in found),
        ]
        parts += ["", "## Instances that fail", ""]
        parts += [
            f"The stated day, 1m-tp1: a GPU fails every {BETWEEN:.0f} hours of use and is back "
            f"after {REPAIR / 3600:.0f} h; who is on it is lost.",
            "",
            *failing(),
        ]
        parts += ["", "## Roles that change on GPUs that are there", ""]
        parts += [
            "The stated day, peak 10 req/s, on 4 GPUs; a change of role takes 60 s.",
            "",
            *fixed(4),
            "",
        ]
        times = solving(folder)
        if times:
            parts += ["## Time to plan", ""]
            parts += ["Client 5 of m-small, peak 60 req/s, windows of ten minutes; one core.", ""]
            parts += [*times, ""]
    target.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).with_suffix(".md"))
