"""A system with its random inputs, drawn once and run at any rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bestserve.arrays import Bools, Floats, Ints, Ints32
from bestserve.errors import InputError
from bestserve.models.prefix_tree import PrefixTree, draw
from bestserve.models.system import Apart, Collocated, Hybrid, Lane, System
from bestserve.models.token_times import Reader
from bestserve.simulator import routing as routes
from bestserve.simulator.block_cache import NO_CACHE, Cache, new_cache
from bestserve.simulator.checked import check, lanes_of
from bestserve.simulator.coupled import run_coupled
from bestserve.simulator.hybrid import NOT_MIXED, Mixed, share_out
from bestserve.simulator.inputs import (
    BACK_ROUTES,
    PREFIXES,
    ROUTES,
    ArrivalStream,
    Requests,
    arrival_stream,
    draw_acceptance,
    sample_lengths,
    stream,
)
from bestserve.simulator.layout import (
    ARRIVAL,
    CACHED,
    CLASS,
    DRAW,
    EVICTIONS,
    FACTS_WIDTH,
    FIRST,
    LAST,
    OUTPUT,
    PROMPT,
    READY,
    SPECULATING_WIDTH,
    START,
    TAKEN,
    TIMES_WIDTH,
    UNLIMITED,
    Pool,
)
from bestserve.simulator.pool import (
    NO_CHANCES,
    NOBODY,
    kv_blocks,
    new_pool,
    run_assigned,
    run_routed,
)
from bestserve.simulator.ranks import ranked
from bestserve.simulator.reading import DUE, TOKENS
from bestserve.simulator.readings import EVERYBODY, NOTHING_SEEN, new_seen, note_alone, read_by
from bestserve.simulator.transfer import share_link


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Inputs of a run: what every rate shares.

    facts, decode_facts : the requests as the first pool and the decode pool see them
    refused : requests that can never fit a lane's KV cache, and those that follow them
    tree : what prompts share, where there is a prefix cache
    mixed : how a hybrid shares out prompts; kinds, kind_names : as of `Requests`
    draws, decode_draws : uniforms for routing
    accept : of the pool that decodes, as of `Pool`; ranks : as of `Pool`
    """

    system: System
    seed: int
    arrivals: ArrivalStream
    facts: Ints32
    decode_facts: Ints32
    output_len: Ints32
    refused: Bools
    draws: Floats
    decode_draws: Floats
    tree: PrefixTree | None = None
    mixed: Mixed = NOT_MIXED
    accept: Floats
    ranks: Ints
    kinds: Ints | None = None
    kind_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What the compiled loops leave behind: times [s], −1 where it did not happen.

    seen : what readers met, as `reading` lays it out; empty where nobody asked
    """

    pools: tuple[Pool, ...]
    times: Floats
    decode_times: Floats
    evictions: Ints32
    replica: Ints32
    decode_replica: Ints32
    steps: Ints32
    cache: Cache = NO_CACHE
    seen: Floats = field(default_factory=lambda: NOTHING_SEEN)


def prepare(system: System, requests: int, seed: int, given: Requests | None) -> Prepared:
    """Draw the inputs of a run. Raises InputError."""
    if requests < 1:
        raise InputError(f"requests = {requests} must be ≥ 1")
    if seed < 0:
        raise InputError(f"seed = {seed} must be ≥ 0")
    check(system)
    n = requests
    if given is not None:
        n = len(given)
    elif system.arrivals.kind == "closed":
        n = system.arrivals.num_prompts
    if given is None:
        given = sample_requests(system, n, seed)
    tree = given.tree if system.caching is not None else None
    if system.caching is not None and tree is None:
        raise InputError("a prefix cache needs to know what the given requests share: their tree")
    drafting = lanes_of(system)[-1][0].speculation
    accept = NO_CHANCES
    facts = np.zeros((n, SPECULATING_WIDTH if drafting.most else FACTS_WIDTH), dtype=np.int32)
    if drafting.most:
        facts[:, [DRAW, CLASS]], accept = draw_acceptance(drafting, n, seed, given.tokens_per_step)
    facts[:, PROMPT] = given.input_len
    facts[:, OUTPUT] = given.output_len
    if given.cached is not None:
        # An engine always computes the last prompt token, whose output it needs.
        facts[:, CACHED] = np.minimum(given.cached, facts[:, PROMPT] - 1)
    output_len = facts[:, OUTPUT].copy()
    decode_facts = facts[:0]
    mixed = NOT_MIXED
    if not isinstance(system, Collocated):
        decode_facts = facts.copy()
        if isinstance(system, Hybrid):
            mixed, stays = share_out(system, facts, seed)
            facts[~stays, OUTPUT] = 1
        else:
            facts[:, OUTPUT] = 1
        decode_facts[:, READY] = 1
        # The prefix cache is the prefill instance's; a decode instance that recomputes has none.
        decode_facts[:, CACHED] = 0
        refused = _never_fits(system.prefill, facts) | (
            _never_fits(system.decode, decode_facts) & (mixed.on | (output_len > 1))
        )
        decode_replicas = system.decode_replicas
    else:
        refused = _never_fits(system.lane, facts)
        decode_replicas = 0
    scheduled = n
    if tree is not None:
        scheduled = tree.heads
        for r in range(scheduled, n):
            refused[r] |= refused[tree.follows[r]]
    return Prepared(
        system=system,
        seed=seed,
        arrivals=arrival_stream(system.arrivals, scheduled, seed),
        facts=facts,
        decode_facts=decode_facts,
        output_len=output_len,
        refused=refused,
        draws=routing_draws(
            system.routing,
            max(replicas(system), decode_replicas if mixed.on else 0),
            n,
            seed,
            ROUTES,
        ),
        decode_draws=routing_draws(system.routing, decode_replicas, n, seed, BACK_ROUTES),
        tree=tree,
        mixed=mixed,
        accept=accept,
        ranks=ranked(system.lengths, given.kinds),
        kinds=given.kinds,
        kind_names=given.kind_names,
    )


def sample_requests(system: System, n: int, seed: int) -> Requests:
    """Draw n requests, with what they share where the system caches it."""
    if system.caching is None or system.caching.sharing is None:
        return sample_lengths(system.lengths, n, seed)
    rng = stream(seed, PREFIXES)
    tree, prompt, output = draw(system.caching.sharing, n, rng)
    return Requests(input_len=prompt, output_len=output, tree=tree)


def _never_fits(lane: Lane, facts: Ints32) -> Bools:
    """Whether a request needs more KV than an empty lane has [n]."""
    blocks = kv_blocks(lane)
    if blocks == UNLIMITED:
        return np.zeros(len(facts), dtype=np.bool_)
    need = facts[:, PROMPT].astype(np.int64) + facts[:, OUTPUT] - 1
    need += np.where(facts[:, OUTPUT] > 1, lane.speculation.most, 0)
    too_long: Bools = -(-need // lane.kv_block) > blocks
    return too_long


def routing_draws(routing: str, lanes: int, n: int, seed: int, purpose: int) -> Floats:
    """Return the uniforms that a routing rule needs, two a request, or none."""
    if lanes > 1 and routing in ("random", "power_of_two"):
        return stream(seed, purpose).random((n, 2))
    return np.zeros((0, 2))


def replicas(system: System) -> int:
    """Return the number of lanes that take arrivals."""
    return lanes_of(system)[0][1]


def execute(
    prepared: Prepared,
    rate: float,
    journal: tuple[int, int] = (0, 0),
    reader: Reader | None = None,
    counted: slice = EVERYBODY,
) -> Finished:
    """Run the compiled loops at one rate [req/s] (NaN: none asked).

    reader : whose deadlines are watched; counted : requests whose gaps go into the histogram
    """
    system = prepared.system
    n = len(prepared)
    tree = prepared.tree
    # A session brings several requests, `rate` counts them all.
    share = 1.0 if tree is None else tree.heads / n
    scheduled = prepared.arrivals.at(rate * share)
    tandem = not isinstance(system, Collocated)
    mixed = prepared.mixed
    facts, decode_facts = prepared.facts.copy(), prepared.decode_facts.copy()
    times = np.full((n, TIMES_WIDTH), -1.0)
    decode_times = np.full((len(decode_facts), TIMES_WIDTH), -1.0)
    (first_lane, count), *rest = lanes_of(system)
    front = new_pool(
        first_lane,
        count,
        stream=not tandem or mixed.on,
        journal=journal[0],
        accept=prepared.accept,
        stepwise=mixed.watermark > 0.0,
        ranks=prepared.ranks,
    )
    decode_lane, decode_count = rest[0] if rest else (first_lane, 0)
    back = new_pool(
        decode_lane,
        decode_count,
        journal=journal[1],
        accept=prepared.accept,
        stepwise=mixed.watermark > 0.0,
        ranks=prepared.ranks,
    )
    seen = NOTHING_SEEN
    if reader is not None:
        if decode_lane.speculation.most:
            raise InputError(
                "objectives on single tokens of answers that are speculated are not modelled: "
                "leave them or speculative_config out"
            )
        if mixed.on and max(first_lane.stream_interval, decode_lane.stream_interval) > 1:
            raise InputError(
                "objectives on tokens of hybrid pools that gather tokens into messages are not "
                "modelled: set stream_interval to 1"
            )
        seen = new_seen(reader, front_end(prepared), counted)
        # what a decode instance gathers into messages the prefill instance has not sent
        if stream_interval(system) == 1 or not tandem:
            front = read_by(front, seen)
        back = read_by(back, seen)
    replica = np.zeros(n, dtype=np.int32)
    decode_replica = np.full(n, -1, dtype=np.int32)
    arrivals = system.arrivals
    closed = arrivals.kind == "closed"
    cap = arrivals.concurrency if closed else arrivals.cap
    cache = NO_CACHE if tree is None else new_cache(prepared.system, tree, facts, prepared.refused)
    if cache.on and cap == 0 and (cache.tiers.size or len(scheduled) < n):
        cap = n
    if mixed.on:
        mixed = mixed._replace(asked=np.full(n, -1.0))
    if mixed.on or prepared.ranks.size:
        cap = cap or n
    if cap > 0:
        link = [0.0, 0.0, 0.0, 0.0]
        if not isinstance(system, Collocated):
            t = system.transfer
            link = [t.latency, _link_time(system), float(t.shared), t.seconds_per_token]
        run_coupled(
            front,
            back,
            times,
            facts,
            replica,
            decode_times,
            decode_facts,
            decode_replica,
            prepared.refused,
            scheduled,
            cap,
            np.array([arrivals.think if closed else 0.0, first_lane.t_req, first_lane.t_req_token]),
            np.array(link),
            routes.CODES[system.routing],
            prepared.draws,
            prepared.decode_draws,
            cache,
            NO_CACHE,
            np.zeros(0) if tree is None else tree.pause,
            mixed,
        )
    else:
        times[:, ARRIVAL] = scheduled
        if reader is not None:
            seen[:, DUE] += scheduled
        routing, draws = system.routing, prepared.draws
        replica = _open(front, routing, draws, times, facts, prepared.refused, cache)
        if not isinstance(system, Collocated):
            _hand_over(
                prepared,
                system,
                back,
                times,
                facts,
                replica,
                decode_times,
                decode_facts,
                decode_replica,
            )
    if cache.on:
        times[:, ARRIVAL] = np.where(cache.asked >= 0, cache.asked, times[:, ARRIVAL])
    if mixed.on:
        times[:, ARRIVAL] = mixed.asked
    if reader is not None and tandem:
        note_alone(back, times[:, LAST], np.flatnonzero(~prepared.refused & (seen[:, TOKENS] == 0)))
    replica[prepared.refused] = -1
    evictions = facts[:, EVICTIONS].copy()
    if tandem:
        evictions += decode_facts[:, EVICTIONS]
    return Finished(
        pools=(front, back) if tandem else (front,),
        times=times,
        decode_times=decode_times,
        evictions=evictions,
        replica=replica,
        decode_replica=decode_replica,
        steps=_steps(decode_facts if tandem else facts, prepared.output_len),
        cache=cache,
        seen=seen,
    )


def _steps(facts: Ints32, output_len: Ints32) -> Ints32:
    """Return the decode steps of each request [n]."""
    if facts.shape[1] == SPECULATING_WIDTH:
        return facts[:, TAKEN].copy()
    return output_len - 1


def _link_time(system: Apart) -> float:
    """Return the transfer time per token that no prefill hides, alone on the link [s/token]."""
    return system.transfer.seconds_per_token * (1.0 - system.transfer.overlap)


def _open(
    pool: Pool,
    routing: str,
    draws: Floats,
    times: Floats,
    facts: Ints32,
    refused: Bools,
    cache: Cache = NO_CACHE,
) -> Ints32:
    """Run one pool under known arrivals; return the lane of each request [n]."""
    lanes = np.zeros(len(times), dtype=np.int32)
    count = len(pool.clock)
    if count > 1 and routing not in routes.STATIC:
        code = routes.CODES[routing]
        run_routed(pool, times, facts, lanes, refused, NOBODY, code, draws, cache)
        return lanes
    if count > 1:
        served = ~refused
        lanes[served] = routes.assign(routing, draws, count, int(np.count_nonzero(served)))
    run_assigned(pool, times, facts, lanes, refused, cache)
    return lanes


def _hand_over(
    prepared: Prepared,
    system: Apart,
    back: Pool,
    times: Floats,
    facts: Ints32,
    replica: Ints32,
    decode_times: Floats,
    decode_facts: Ints32,
    decode_replica: Ints32,
) -> None:
    """Transfer finished prompts and run the decode pool: nothing flows back to the first."""
    ids = np.flatnonzero(~prepared.refused & (prepared.output_len > 1))
    ids = ids[np.argsort(times[ids, LAST], kind="stable")]
    sent = times[ids, LAST]
    works = _link_time(system) * facts[ids, PROMPT]
    if system.transfer.shared:
        arrived = share_link(sent, works, replica[ids], system.prefill_replicas)
        arrived += system.transfer.latency
    else:
        arrived = sent + system.transfer.latency + works
    order = np.lexsort((ids, arrived))
    ids, arrived = ids[order], arrived[order]
    queue_times = decode_times[ids]
    queue_times[:, ARRIVAL] = arrived
    if system.decode.stream_interval == 1:
        queue_times[:, FIRST] = times[ids, LAST]
    queue_facts = decode_facts[ids]
    none = np.zeros(len(ids), dtype=np.bool_)
    seen = back.seen
    if len(seen):
        back = back._replace(seen=seen[ids])
    # No prompt is computed here whose time could be predicted.
    routing = "least_outstanding" if system.routing == "least_ttft" else system.routing
    decode_replica[ids] = _open(
        back, routing, prepared.decode_draws, queue_times, queue_facts, none
    )
    decode_times[ids] = queue_times
    decode_facts[ids] = queue_facts
    if len(seen):
        seen[ids] = back.seen


def front_end(prepared: Prepared) -> Floats:
    """Return the time that HTTP, tokeniser and detokeniser add to a request [n] [s]."""
    lane = lanes_of(prepared.system)[0][0]
    prompt = prepared.facts[:, PROMPT].astype(np.float64)
    return lane.t_req + lane.t_req_token * prompt


def stream_interval(system: System) -> int:
    """Return the output tokens per message of the pool that decodes [tokens]."""
    return lanes_of(system)[-1][0].stream_interval


def request_times(prepared: Prepared, finished: Finished) -> tuple[Floats, Floats, Floats, Floats]:
    """Return arrival, start, first message, last token of each request [n] [s].

    The last two are as the client sees them, front-end time included; `nan` if refused.
    """
    system = prepared.system
    times = finished.times
    start, first, last = times[:, START], times[:, FIRST], times[:, LAST]
    if not isinstance(system, Collocated):
        there = finished.decode_times
        last = np.where(there[:, LAST] >= 0, np.maximum(there[:, LAST], last), last)
        if isinstance(system, Hybrid):
            earlier = (start < 0) | (there[:, START] < start)
            start = np.where((there[:, START] >= 0) & earlier, there[:, START], start)
            first = np.where(there[:, FIRST] >= 0, there[:, FIRST], first)
        elif system.decode.stream_interval > 1:
            first = np.where(there[:, LAST] >= 0, there[:, FIRST], first)
    shift = front_end(prepared)
    return (
        times[:, ARRIVAL].copy(),
        np.where(prepared.refused, math.nan, start),
        np.where(prepared.refused, math.nan, first + shift),
        np.where(prepared.refused, math.nan, last + shift),
    )
