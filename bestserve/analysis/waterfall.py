"""The way from a request to goodput, part by part: operators, step, capacity, waiting, percentile.

TTFT at the goodput is front end + own prompt alone + waiting and sharing + distance from mean to
percentile; TPOT is a decode step of the mean batch, by resource, + steps lengthened by prompts +
distance to percentile. What remains to the objective is the room left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bestserve.analysis.operating import Operating, operate, rooms
from bestserve.answers.draft_choice import draft_choice
from bestserve.answers.predict import recorded_requests
from bestserve.answers.referee import TRACED
from bestserve.answers.saturation import sustained
from bestserve.lowering import Lowered, decode_breakdown
from bestserve.models.binding import Binding
from bestserve.models.latency import lane_engine
from bestserve.models.queues.requests import prepare
from bestserve.models.schedulers.engine import Engine
from bestserve.models.speculation import Speculation
from bestserve.models.step.breakdown import step_breakdown
from bestserve.models.step.step_work import StepWork
from bestserve.models.system import Collocated, Lane
from bestserve.models.trust import Trust
from bestserve.results.document import Document
from bestserve.results.speculation import DraftChoice
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

RESOURCE_TEXT = {
    "memory": "reading weights and KV",
    "compute": "computing",
    "communication": "exchanging between GPUs",
    "dispatch": "launching kernels and host work",
}
SMALL = 0.05
"""Operators below this share of a step are summed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One bar of a waterfall: what it is and how long it takes [s]."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    """How one latency comes about: parts that sum to `value` [s], and its objective.

    percentile : of `value` [%]; threshold : objective [s], None if there is none
    """

    metric: str
    percentile: float
    parts: tuple[Part, ...]
    value: float
    threshold: float | None

    def records(self) -> list[dict[str, Any]]:
        """Return one row per part, with the running sum [ms]."""
        rows, total = [], 0.0
        for part in self.parts:
            total += part.seconds
            rows.append(
                {
                    "metric": self.metric,
                    "part": part.name,
                    "time_ms": part.seconds * 1e3,
                    "sum_ms": total * 1e3,
                }
            )
        return rows


@dataclass(frozen=True, slots=True)
class StepParts:
    """One step by operator: kind of step, what is in it, its time, and the operators' [s]."""

    kind: str
    work: str
    seconds: float
    operators: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Explanation(Document):
    """Why a strategy carries what it carries.

    slots : running sequences per (decode) lane, lanes : of them; capacity, goodput [req/s]
    batch : mean running sequences per lane at the goodput; room : by objective, ln [1]
    drafting : why it drafts as many tokens as it does, None where nothing is speculated
    """

    problem: Problem
    strategy: str
    steps: tuple[StepParts, ...]
    memory: str
    slots: int
    lanes: int
    capacity: float
    goodput: float
    batch: float
    binding: str
    room: dict[str, float]
    waterfalls: tuple[Waterfall, ...]
    trust: Trust
    drafting: DraftChoice | None = None

    def records(self) -> list[dict[str, Any]]:
        """Return the parts of all waterfalls."""
        return [row for w in self.waterfalls for row in w.records()]

    def waterfall(self, metric: str) -> Waterfall:
        """Return the waterfall of "ttft" or "tpot"."""
        return next(w for w in self.waterfalls if w.metric == metric)

    def sentences(self) -> list[str]:
        """Return the way from request to goodput, one stage a line."""
        lines = []
        for step in self.steps:
            named = ", ".join(f"{p.name} {p.seconds * 1e3:.2g} ms" for p in step.operators)
            head = f"A {step.kind} step of {step.work} takes {step.seconds * 1e3:.1f} ms"
            lines.append(f"{head}: {named}." if named else f"{head}.")
        if self.memory:
            lines.append(f"Memory: {self.memory}.")
        lines.append(
            f"Capacity: {self.lanes} {'lane' if self.lanes == 1 else 'lanes'} of {self.slots:,} "
            f"running sequences {'each ' if self.lanes > 1 else ''}make the service saturate at "
            f"{self.capacity:.3g} req/s."
        )
        lines.append(
            f"Goodput: {self.goodput:.3g} req/s, {self.goodput / self.capacity:.0%} of that, with "
            f"{self.batch:.0f} sequences running per lane."
        )
        for w in self.waterfalls:
            parts = " + ".join(f"{p.name} {p.seconds * 1e3:.0f}" for p in w.parts)
            against = "" if w.threshold is None else f" of {w.threshold * 1e3:.0f} allowed"
            name = f"P{w.percentile:g} {w.metric.upper()}"
            lines.append(f"{name} there: {w.value * 1e3:.0f} ms{against} = {parts}.")
        lines += [] if self.drafting is None else [self.drafting.explain()]
        lines.append(self.verdict())
        return lines

    def verdict(self) -> str:
        """Return which bound stops the strategy, and the nearest miss."""
        others = {m: r for m, r in self.room.items() if m != self.binding}
        stop = f"It stops at its {Binding.of(self.binding).short}"
        if not others:
            return f"{stop}; nothing else is asked for."
        nearest = min(others, key=lambda m: others[m])
        spare = 1 - float(np.exp(-max(others[nearest], 0.0)))
        missed = Binding.of(nearest).short
        return f"{stop}; the nearest miss is its {missed}, {spare:.0%} below the threshold."

    def explain(self) -> str:
        """Return the sentences, and what the trust is."""
        lines = [f"{self.strategy} (trust {self.trust})"]
        return "\n  ".join([*lines, *self.sentences()])


def explanation(problem: Problem | Lowered, strategy: str | Strategy) -> Explanation:
    """Return the way from request to goodput of one strategy.

    Raises InputError (no objectives, closed loop), InfeasibleError (no goodput, and why).
    """
    at = operate(problem, strategy, "auto")
    system, found = at.system, at.found.at
    collocated = isinstance(system, Collocated)
    last = system.lane if isinstance(system, Collocated) else system.decode
    lanes = system.replicas if isinstance(system, Collocated) else system.decode_replicas
    engine = lane_engine(last, system.lengths, found.mean_batch)
    room = rooms(found, at.target)
    return Explanation(
        problem=at.lowered.problem,
        strategy=str(at.strategy),
        steps=_steps(at, found.mean_batch),
        memory=_memory(at),
        slots=engine.slots,
        lanes=lanes,
        capacity=sustained(system, recorded_requests(at.lowered.problem, TRACED)),
        goodput=at.rate,
        batch=found.mean_batch,
        binding=at.found.binding.key,
        room=room,
        waterfalls=(_ttft(at, collocated), _tpot(at, last)),
        trust=at.found.trust,
        drafting=draft_choice(at.lowered, at.strategy),
    )


def _memory(at: Operating) -> str:
    plan = at.lowered.pool_result(at.strategy.pools[-1]).plan
    return plan.explain() if plan is not None else ""


def _works(lowered: Lowered, batch: float) -> dict[str, tuple[StepWork, str]]:
    requests = prepare(lowered.lengths)
    context, prompt = requests.context, requests.p1
    sequences = max(batch, 1.0)
    return {
        "prefill": (StepWork.grid(chunk=prompt, prompts=1), f"one {prompt:,.0f}-token prompt"),
        "decode": (
            StepWork.grid(context=context, decodes=sequences),
            f"{sequences:.0f} sequences at {context:,.0f} tokens",
        ),
    }


def _steps(at: Operating, batch: float) -> tuple[StepParts, ...]:
    if at.lowered.problem.step_time is not None:
        return ()
    found = []
    pools = {"prefill": at.strategy.pools[0], "decode": at.strategy.pools[-1]}
    lowered = at.lowered
    for kind, (work, text) in _works(lowered, batch).items():
        breakdown = step_breakdown(
            lowered.model.architecture,
            lowered.device,
            pools[kind].parallelism,
            lowered.formats,
            lowered.engine.for_role(pools[kind].work),
            work,
            lowered.constants,
        )
        total = float(breakdown.total[0])
        sums: dict[str, float] = {}
        for operator in breakdown.operators:
            seconds = float(np.ravel(np.asarray(operator.time))[0])
            sums[operator.name] = sums.get(operator.name, 0.0) + seconds
        ordered = sorted(sums.items(), key=lambda item: -item[1])
        shown = [Part(n, s) for n, s in ordered if s >= SMALL * total]
        others = sum(s for n, s in ordered if s < SMALL * total)
        host = total - sum(sums.values())
        shown += [Part("other kernels", others)] if others > 0 else []
        shown += [Part("host and prompt factor", host)] if host > 1e-9 else []
        found.append(StepParts(kind, text, total, tuple(shown)))
    return tuple(found)


def _ttft(at: Operating, collocated: bool) -> Waterfall:
    system, found, target = at.system, at.found.at, at.target
    lane = system.lane if isinstance(system, Collocated) else system.prefill
    engine = lane_engine(lane, system.lengths)
    weight = engine.requests.weight
    alone = float(weight @ engine.prompt_times(0.0, True, engine.budget))
    front = engine.front_end()
    mean = found.ttft.mean
    value = found.ttft.quantile(target.ttft_percentile)
    percentile = 100 * target.ttft_percentile
    waiting = "waiting and sharing steps" if collocated else "waiting for the prefill pool"
    parts = (
        Part("front end", front),
        Part("own prompt, alone", alone),
        Part(waiting, mean - front - alone),
        Part(f"from mean to P{percentile:g}", value - mean),
    )
    return Waterfall("ttft", percentile, parts, value, target.ttft)


def _tpot(at: Operating, lane: Lane) -> Waterfall:
    system, found, target = at.system, at.found.at, at.target
    batch = max(found.mean_batch, 1.0)
    plain = lane_engine(replace(lane, speculation=Speculation()), system.lengths)
    step = plain.decode(batch)
    value = found.tpot.quantile(target.tpot_percentile)
    percentile = 100 * target.tpot_percentile
    breakdown = decode_breakdown(at.lowered, at.strategy.pools[-1], batch)
    if breakdown is None:
        parts = [Part("decode step", step)]
    else:
        # Shares from the operators, length from the step time that the queues see (1 % apart).
        shares = {r: float(getattr(breakdown, r)[0] / breakdown.total[0]) for r in RESOURCE_TEXT}
        ordered = sorted(shares, key=lambda r: -shares[r])
        parts = [Part(RESOURCE_TEXT[r], shares[r] * step) for r in ordered]
    if lane.speculation.most:
        parts += _speculated(lane_engine(lane, system.lengths, batch), batch, step)
    more = "prompts in the same steps" if isinstance(system, Collocated) else "batch and KV arrival"
    parts.append(Part(more, found.tpot.mean - sum(part.seconds for part in parts)))
    parts.append(Part(f"from mean to P{percentile:g}", value - found.tpot.mean))
    return Waterfall("tpot", percentile, tuple(parts), value, target.tpot)


def _speculated(engine: Engine, batch: float, plain: float) -> list[Part]:
    """Return what drafts add to a plain decode step of a batch [s], and what those accepted save.

    Negative is what is saved; the sum with the plain step is the time of a token.
    """
    requests, drafting = engine.requests, engine.drafting(batch)
    step = engine.decode(batch)
    steps = float(requests.class_weight @ requests.classes)
    per_token = steps / float(requests.class_weight @ requests.class_tokens)
    return [
        Part("verifying drafts", step - drafting - plain),
        Part("drafting", drafting),
        Part(f"{1 / per_token:.2f} tokens a step", step * (per_token - 1.0)),
    ]
