"""One engine instance doing one workload: step times by composition, limits, noise response."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.acceptance import Drafting, tokens_per_step
from bestserve.models.distribution import Distribution
from bestserve.models.queues.held_tokens import HeldTokens
from bestserve.models.queues.requests import Requests
from bestserve.models.queues.tpot.noise import Response
from bestserve.models.queues.tpot.pearson import Unstalled
from bestserve.models.schedulers.ahead import slots_decoding
from bestserve.models.schedulers.steps import (
    MeanRequest,
    alone_times,
    decode_steps,
    draft_time,
    mean_steps,
    prompt_step,
    prompt_steps,
)
from bestserve.models.system import Lane
from bestserve.models.trust import Situation

FEW_LONGEST = 0.1
"""Share of E[tokens²] in prompts beyond the chain's grid: mean waits are off by as much."""

OFTEN_FULL = 0.01
"""Share of the time with a full KV cache from which waits and evictions show in the percentiles."""

NEARLY_FULL = 0.9
"""Load from which a lane that the KV cache limits may stay full once it is: what is recomputed
keeps it so, and with answers of one length it then carries up to a tenth less."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Engine:
    """A lane with its requests; everything that does not depend on the rate.

    Compared by identity, so that tables per engine can be kept.

    slots : running sequences at most, on average of a full KV cache [sequences]
    full : chance that 0 … slots sequences want more tokens than the KV cache holds [slots + 1]
    held : law of the tokens in the KV cache
    decode_times : t_d(1 … slots) of decode-only steps at mean context [s]
    mean : what compiled loops time steps with
    decodes_per_prompt : φ, requests that decode here over prompts processed here: 1 where each does
        both, more where decodes come from other lanes [1]
    """

    lane: Lane
    requests: Requests
    slots: int
    full: Floats
    held: HeldTokens
    decode_times: Floats
    mean: MeanRequest
    decodes_per_prompt: float = 1.0

    @classmethod
    def of(cls, lane: Lane, requests: Requests, decodes_per_prompt: float = 1.0) -> Engine:
        """Return the engine; `slots` 0 when the KV cache cannot hold one mean request."""
        held = HeldTokens.of(lane, requests)
        widest = lane.max_num_batched_tokens // (requests.drafting.drafts + 1)
        most = int(min(lane.max_num_seqs, held.full_number, widest))
        slots = slots_decoding(lane, most, requests.d1)
        r, step = requests, lane.step
        schedule, drafting, experts = _drafting(lane, r.drafting)
        mean = MeanRequest(
            prompt=r.p1,
            cached=r.found,
            pairs=r.pairs / r.p1,
            context=r.context,
            coef=step.coefficients(),
            moe=step.moe_table(),
            schedule=schedule,
            drafting=drafting,
            experts=experts,
        )
        times = decode_steps(np.arange(1.0, slots + 1), mean)
        full = held.full(np.arange(slots + 1.0))
        return cls(lane, requests, slots, full, held, times, mean, decodes_per_prompt)

    @property
    def budget(self) -> float:
        """Tokens per step at most."""
        return float(self.lane.max_num_batched_tokens)

    @property
    def width(self) -> int:
        """Tokens that a decode takes of a step."""
        return self.requests.drafting.drafts + 1

    @property
    def context_time(self) -> float:
        """Reading one token of a decode's context, by the model and by what drafts [s]."""
        lane = self.lane
        return lane.step.k + self.requests.drafting.drafts * lane.speculation.draft_context

    def room(self, n: float) -> float:
        """Return the prompt tokens that fit into a step beside n decodes, at least 1."""
        return max(self.budget - self.width * n, 1.0)

    def drafting(self, n: float) -> float:
        """Return what drafting takes beside n decodes [s]."""
        drafts = float(self.width - 1)
        return float(draft_time(n, drafts, self.requests.context, self.mean.drafting))

    def decode(self, n: float) -> float:
        """Return t_d at a real number of sequences [s]."""
        return float(self.decodes(np.array([float(n)]))[0])

    def decodes(self, n: Floats) -> Floats:
        """Return t_d of decode-only steps of n sequences at mean context [m, s]."""
        return np.asarray(decode_steps(n, self.mean))

    def slope(self, n: float, spread: float) -> float:
        """Return d t_d / dn beside n others as a secant over n ± spread [s/sequence].

        The request that sees them is there, too: what the first of all adds, which with experts is
        most of a step, is added to no step of another.
        """
        reach = max(spread, 1.0)
        low, high = max(n + 1.0 - reach, 1.0), n + 1.0 + reach
        t = self.decodes(np.array([low, high]))
        return float((t[1] - t[0]) / (high - low))

    def response(self, n: float, spread: float) -> Response:
        """Return what one more sequence adds to a decode step around n."""
        k = self.context_time
        own = self.slope(n, spread)
        return Response(alpha=max(own - k * self.requests.context, 0.0), k=k)

    def prompt_step(self, tokens: float, decodes: float, split: bool) -> float:
        """Return the time of a step that takes `tokens` prompt tokens beside `decodes` [s].

        Attention pairs per prompt token are those of a mean prompt; a step of few whole prompts
        has at most the pairs of one prompt of that size.
        """
        return float(prompt_step(float(tokens), float(decodes), split, self.mean))

    def prompt_steps(
        self, decodes: float, split: bool, when_full: float = 0.0, full: float = math.inf
    ) -> Callable[[Floats], Floats]:
        """Return the times of steps by their prompt tokens, [m] to [m, s], as `prompt_step`.

        when_full : decodes beside prompts in steps of `full` tokens and more
        """
        mean = self.mean
        return lambda tokens: prompt_steps(tokens, decodes, when_full, full, split, mean)

    def mean_steps(self, rate: float, decodes: Floats, room: Floats, split: bool) -> Floats:
        """Return mean times of steps that always hold `decodes` beside Poisson prompts [m, s].

        rate : of the prompts [1/s]; room : prompt tokens of a step at most [m]
        """
        plain = self.decodes(decodes)
        return np.asarray(mean_steps(decodes, plain, rate, room, split, self.mean))

    def prompt_times(self, decodes: float, split: bool, room: float) -> Floats:
        """Return the time of the steps a prompt needs when nothing else waits [m, s].

        room : prompt tokens per step; beyond it a prompt is split if `split`
        """
        r = self.requests
        times = alone_times(r.prompt, r.cached, float(decodes), bool(split), float(room), self.mean)
        return np.asarray(times)

    def work_tokens(self, room: float) -> Floats:
        """Return prompts in tokens of mean cost: a long prompt's attention counts [m, tokens].

        At full steps a prompt of l tokens and A attention pairs costs l·c + φ·a·A, and what the
        host spends on each; dividing by the mean cost per token lets one number stand for all. The
        mean stays E[l].
        """
        r, step = self.requests, self.lane.step
        full = float(step(T=room, A=0.0, K=0.0, n=0.0, prefill=True))
        pairs = step.phi * step.a * (r.prompt * r.cached + r.prompt**2 / 2)
        drafting = self.lane.speculation.draft_token * r.prompt
        cost = step.a_seq + r.prompt * (full / room) + pairs + drafting
        return np.asarray(cost * (r.p1 / float(r.weight @ cost)))

    def evictions(self, decodes: float) -> float:
        """Return the evictions per request with so many decoding; as many as do when all wait.

        Where these are all that the KV cache holds, more would run and are kept out by it.
        """
        wanted = self.lane.max_num_seqs if decodes >= self.slots - 1 else decodes
        return self.held.evictions(float(wanted))

    def recomputing(self, decodes: float, split: bool) -> float:
        """Return the time per request that evicted ones cost when requests always wait [s].

        What one departure makes room for is processed together, beside `decodes` where decodes
        take part in such steps.
        """
        evictions = self.evictions(decodes)
        tokens = evictions * self.requests.p1
        if tokens <= 0.0:
            return 0.0
        rides = self.lane.scheduling.rides
        beside = decodes if rides else 0.0
        steps = max(min(evictions, 1.0), tokens / self.room(beside))
        step = self.prompt_step(tokens / steps, beside, split)
        return steps * (step - (self.decode(beside) if rides else 0.0))

    def kv_reasons(self, running: Floats, load: float) -> tuple[str, ...]:
        """Return the warnings for a KV cache that is often full, or soon would be for good.

        running : chances that 0 … slots sequences run [slots + 1]; load : share of saturation
        """
        share = float(running @ self.full)
        if share > OFTEN_FULL:
            return (f"the KV cache is full {100 * share:.2g} % of the time",)
        if load > NEARLY_FULL and self.slots < self.lane.max_num_seqs:
            return (f"the load is {100 * load:.0f} % of what a full KV cache sustains",)
        if self.held.capacity < self.budget:
            return ("the KV cache holds fewer tokens than max_num_batched_tokens",)
        return ()

    def longest_prompts(self, cut_off: float) -> tuple[str, ...]:
        """Return the warning for prompts that the chain does not see at their length.

        cut_off : share of E[tokens²] in them [1]
        """
        if cut_off <= FEW_LONGEST:
            return ()
        return ("the rare longest prompts, of very many token budgets, decide the wait",)

    def situation(
        self, load: float, decoding: LaneLatency | None = None, *, shared: bool = False
    ) -> Situation:
        """Return what trust in an answer depends on, of the engine that takes its prompts.

        load : share of the stability limit; decoding : the lane that decodes, as far as any does;
        shared : whether decodes are on lanes of the engine
        """
        r = self.requests
        prompt = float(r.weight @ r.prompt)
        return Situation(
            decodes_apart=not shared,
            experts=bool(self.lane.step.moe),
            load=load,
            spread=float(r.weight @ r.prompt**2) / prompt**2 - 1.0,
            steps=r.d1,
            chunks=prompt / self.budget,
            queued=0.0 if decoding is None else decoding.queued,
            bend=0.0 if decoding is None else decoding.bend,
        )

    def front_end(self) -> float:
        """Return the mean front-end time added to TTFT [s]."""
        r = self.requests
        return self.lane.t_req + self.lane.t_req_token * r.asked


@lru_cache(maxsize=512)
def engine_of(lane: Lane, requests: Requests, decodes_per_prompt: float = 1.0) -> Engine:
    """Return the engine of a lane for a workload; recent ones are kept."""
    return Engine.of(lane, requests, decodes_per_prompt)


def _drafting(lane: Lane, counted: Drafting) -> tuple[Floats, Floats, Floats]:
    """Return schedule, drafting and experts of `MeanRequest`.

    counted : of the steps that requests are counted in
    """
    own, plain = lane.speculation, lane.step.moe_table()
    expected = counted.tokens if counted.drafts else 1.0
    rows, experts = [], []
    for start, drafts in own.schedule:
        yields = float(tokens_per_step(np.array(own.acceptance[:drafts]))) if drafts else 1.0
        rows.append((float(start), float(drafts), expected / yields))
        experts.append(np.array(own.experts[drafts]) if own.experts else plain)
    costs = own.draft_step, own.draft_pass, own.draft_token, own.draft_context
    return np.array(rows), np.array(costs), np.stack(experts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLatency:
    """What one lane does to its requests at one rate.

    ttft : time to first token [s]; mean, variance, third : TPOT per output class (as in
    `Requests.classes`), central moments [c; s, s², s³]; unstalled : the part of each class
    whose decodes meet no prompt; low, high : bounds of TPOT [s]
    running : mean sequences; busy : share of the time that steps run; capacity : saturated rate
    of the lane [1/s]; wait : share of requests that wait for a slot; queued : part of mean latency
    that is this wait; bend : of steps over the sequences that decodes meet [1]; stall_atoms : atoms
    of what one prompt adds to a decode [m, s], None where decodes meet none; reasons : why no law
    is known to hold
    """

    ttft: Distribution
    mean: Floats
    variance: Floats
    third: Floats
    unstalled: Unstalled
    low: float
    high: float
    running: float
    busy: float
    capacity: float
    wait: float
    reasons: tuple[str, ...]
    stall_atoms: Floats | None = None
    queued: float = 0.0
    bend: float = 0.0
