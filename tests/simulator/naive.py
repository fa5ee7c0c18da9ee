"""The simulator's semantics, iteration by iteration, in plain Python and from scratch.

Nothing is incremental here: every step recounts contexts, blocks and tokens from the requests
themselves. It shares no code with `bestserve.simulator`, only the step time and the inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from bestserve.models.system import Collocated, Hybrid, Lane, System


def capacity(lane: Lane) -> float:
    """Whole blocks of the KV cache."""
    tokens = lane.kv_capacity_tokens
    return tokens if math.isinf(tokens) else tokens // lane.kv_block


Key = tuple[str, int, int]

ROUNDING = 1e-9
"""Predictions no further apart are equal [s]."""

MOVES = {"away": 0, "back": 0}
"""Decodes that changed pools in the last run."""


@dataclass
class Request:
    number: int
    prompt: int
    output: int
    cached: int
    ready: bool
    arrival: float
    generated: int = 0
    before: int = 0  # generated before the current admission
    processed: int = 0
    decoding: bool = False
    keys: list[Key] = field(default_factory=list)  # of all blocks that it ever fills
    named: int = 0  # the first of them that other prompts share
    depth: int = 0  # found at admission
    loaded: int = 0  # brought by tiers
    hit: int | None = None
    start: float | None = None
    message: float | None = None
    end: float | None = None
    evictions: int = 0
    admitted: int = 0
    stored: int = 0  # prompt tokens whose blocks it holds
    ready_at_first: bool = True  # whether its prompt was processed elsewhere, evictions or not
    tokens: list[float] = field(default_factory=list)  # when each came
    draw: int = 0  # what its draws start from
    chances: list[float] = field(default_factory=list)  # that at least 1, 2, … drafts are accepted
    rank: int = -1  # among all requests, by priority; −1: in order of arrival


@dataclass
class Store:
    """Block keys, least recently used first: a tier, or a router's record."""

    capacity: float
    keys: list[Key] = field(default_factory=list)

    def match(self, keys: list[Key]) -> int:
        n = 0
        while n < len(keys) and keys[n] in self.keys:
            n += 1
        return n

    def touch(self, keys: list[Key]) -> None:
        for key in reversed(keys):
            if key in self.keys:
                self.keys.remove(key)
            self.keys.append(key)
        while len(self.keys) > self.capacity:
            self.keys.pop(0)


@dataclass
class Server:
    lane: Lane
    streams: bool
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)  # in order of admission
    now: float = 0.0
    step: tuple[float, list[tuple[Request, int]], bool] | None = None
    busy: float = 0.0
    prefill: float = 0.0
    batch: float = 0.0
    kv: float = 0.0
    peak: int = 0
    steps: int = 0
    admissions: int = 0
    formed: float = -math.inf  # when the step was formed that starts next
    leaving: list[Request] = field(default_factory=list)  # ended since then
    late: list[int] = field(default_factory=list)  # evicted in the step that ended them
    coming: int = 0  # requests whose prefix is being loaded
    users: dict[Key, int] | None = None  # running requests per cached block; None: no cache
    idle: list[Key] = field(default_factory=list)  # cached blocks without any, oldest first
    tiers: list[Store] = field(default_factory=list)
    reported: int = 0  # what its metrics tell: resident at the end of the last step
    asked: float = -math.inf  # when it was sent a request, if by what metrics tell

    def take(self, r: Request) -> None:
        """Let a request wait, before all that its priority passes."""
        self.waiting.append(r)
        self.waiting.sort(key=lambda r: r.rank)

    def decodes(self) -> list[Request]:
        return [r for r in self.running if r.decoding]

    def width(self, decodes: int) -> int:
        """Tokens of so many decodes and their drafts."""
        drafts = 0
        for start, count in self.lane.speculation.schedule:
            if decodes >= start:
                drafts = count
        return decodes * (1 + drafts)

    def slots(self) -> int:
        n = 0
        while n < self.lane.max_num_seqs and self.width(n + 1) <= self.lane.max_num_batched_tokens:
            n += 1
        return n

    def gain(self, r: Request, drafts: int) -> int:
        """Tokens that a decode gains in the step that ends."""
        if drafts == 0:
            return 1
        u = uniform(r.draw, r.generated)
        accepted = 0
        while accepted < drafts and u < r.chances[accepted]:
            accepted += 1
        return min(1 + accepted, r.output - r.generated)

    def reserved(self, r: Request) -> int:
        tokens = max(r.prompt + int(self.lane.kv_reserve * (r.output - 1)), r.prompt + r.before)
        return -(-tokens // self.lane.kv_block)

    def blocks(self, r: Request) -> int:
        if not r.decoding and r in self.running and self.lane.kv_reserve == 0:
            return -(-r.stored // self.lane.kv_block)
        grown = r.prompt + r.generated if r.decoding else 0
        own = max(r.prompt + int(self.lane.kv_reserve * (r.output - 1)), r.prompt + r.before)
        if grown > own:
            grown += self.lane.speculation.most
        return max(self.reserved(r), -(-grown // self.lane.kv_block))

    def held(self, running: list[Request]) -> int:
        """Blocks of these and of who ends meanwhile, whose last token is not in the cache."""
        return sum(self.blocks(r) for r in running) + sum(
            max(self.reserved(r), -(-(r.prompt + r.output - 1) // self.lane.kv_block))
            for r in self.leaving
        )

    def capacity(self) -> float:
        return capacity(self.lane)

    def used(self, *more: Request) -> int:
        """Blocks that running requests hold; what several hold counts once."""
        total = self.held([*self.running, *more])
        users = self.users or {}
        total -= sum(n - 1 for n in users.values() if n > 1)
        return total - sum(users.get(k, 0) > 0 for r in more for k in r.keys[: r.named])

    def match(self, keys: list[Key]) -> int:
        n = 0
        while n < len(keys) and keys[n] in (self.users or {}):
            n += 1
        return n

    def give_up(self) -> None:
        """Forget the oldest idle blocks where running requests need the room."""
        while self.idle and len(self.idle) > self.capacity() - self.used():
            assert self.users is not None
            del self.users[self.idle.pop(0)]

    def find(self, r: Request) -> None:
        """Look up a prompt that asks for admission."""
        if self.users is None:
            return
        self.give_up()
        r.depth = max(self.match(r.keys), r.loaded)
        block = self.lane.kv_block
        r.cached = min(r.depth, (r.prompt + r.before - 1) // block) * block

    def hold(self, r: Request) -> None:
        if self.users is None:
            return
        for j, key in enumerate(r.keys):
            if key in self.idle and (j < r.named or self.users[key] == 0):
                self.idle.remove(key)
            if j < r.named:
                self.users[key] = self.users.get(key, 0) + 1
            else:
                self.users.pop(key, None)  # its own again
        if r.hit is None:
            r.hit = r.cached
        for tier in self.tiers:
            tier.touch(r.keys[: r.named])

    def leave(self, r: Request, computed: int) -> None:
        """Leave the full blocks behind, the last of them first."""
        if self.users is None:
            return
        full = max(computed // self.lane.kv_block, r.depth)
        r.loaded = 0
        for j, key in reversed(list(enumerate(r.keys[: max(full, r.named)]))):
            left = self.users[key] - 1 if j < r.named else 0
            self.users[key] = left
            if left == 0 and j < full:
                self.idle.append(key)
            elif left == 0:
                del self.users[key]
        for tier in self.tiers:
            tier.touch(r.keys[: max(full, r.named, tier.match(r.keys))])

    def resident(self) -> int:
        return sum(r.prompt + (r.generated if r.decoding else r.before) for r in self.running)

    def load(self) -> int:
        return sum(
            r.prompt + (r.generated if r.decoding else r.before)
            for r in self.running + self.waiting
        )

    def outstanding(self) -> int:
        return len(self.running) + len(self.waiting) + self.coming

    def predicted(self, now: float, tokens: int) -> float:
        """How long a prompt would take behind those that wait, beside those that decode."""
        rides = self.lane.scheduling.rides
        beside = self.decodes() if rides else []
        own = self.lane.scheduling.prompt_budget or self.lane.max_num_batched_tokens
        n, step = self.width(len(beside)), self.lane.step
        room = min(self.lane.max_num_batched_tokens - n, own)
        if room < 1:
            return math.inf
        parts = self.step[1] if self.step is not None else []
        work = tokens + sum(r.prompt + r.before for r in self.waiting if not r.ready)
        work += sum(r.prompt + r.before - r.processed for r in self.running if not r.decoding)
        work -= sum(take for _, take in parts)
        full, rest = (work - 1) // room, (work - 1) % room + 1
        context = sum(r.prompt + r.generated for r in beside)
        each = step(room + n, 0.0, context, n + 1, True)
        last = step(rest + n, tokens * tokens / 2, context, n + 1, True)
        wait = self.step[0] - now if self.step is not None else 0.0
        return wait + full * each + last

    def free(self) -> float:
        """Blocks that running requests do not hold in the next step."""
        return self.capacity() - sum(self.blocks(r) for r in self.running)

    def event(self) -> float:
        """When something happens next, arrivals apart."""
        if self.step is not None:
            return self.step[0]
        return self.now if self.running or self.waiting else math.inf

    def start(self, now: float) -> None:
        """Start the step that begins now, formed now or, asynchronously, a step earlier."""
        self.now = now
        if not (self.lane.async_scheduling and self.form(now, self.formed)):
            self.let_go()
            if not self.form(now, now) and (self.running or self.waiting):
                raise AssertionError("a lane with work must step")
        self.let_go()
        self.formed = now

    def let_go(self) -> None:
        """Let those leave whose end is known from now on."""
        for r in self.leaving:
            self.leave(r, r.prompt + r.output - 1)
        self.leaving = []

    def form(self, now: float, known: float) -> bool:
        """Form a step of who arrived until `known`; return whether there is anything to do."""
        lane = self.lane
        evicted = False
        slots = self.slots()
        policy = lane.scheduling
        rides = policy.rides
        left = lane.max_num_batched_tokens - (self.width(len(self.decodes())) if rides else 0)
        own = policy.prompt_budget or lane.max_num_batched_tokens
        for r in self.running:
            if not r.decoding:
                r.stored = r.processed + max(min(left, r.prompt + r.before - r.processed, own), 0)
        while self.used() > self.capacity():
            evicted = True
            last = max(self.leaving, key=lambda r: r.admitted, default=None)
            if last is not None and last.admitted > self.running[-1].admitted:
                self.leaving.remove(last)
                self.leave(last, last.prompt + last.output - 1)
                self.late.append(last.number)
                continue
            youngest = max(self.running, key=lambda r: r.rank)
            if youngest.rank < 0:
                youngest = self.running[-1]
            self.running.remove(youngest)
            computed = youngest.prompt + youngest.generated - 1
            self.leave(youngest, computed if youngest.decoding else youngest.processed)
            youngest.decoding = False
            youngest.ready = False
            youngest.processed = 0
            youngest.before = youngest.generated
            youngest.evictions += 1
            self.waiting.insert(0, youngest)
            self.waiting.sort(key=lambda r: r.rank)
        parts: list[tuple[Request, int]] = []
        if not evicted:
            for r in self.running:
                if not r.decoding:  # a prompt that an earlier step has split
                    take = min(left, r.prompt + r.before - r.processed, own)
                    if take > 0:
                        parts.append((r, take))
                        left -= take
            while self.waiting and len(self.running) + len(self.leaving) < slots:
                r = self.waiting[0]
                if r.arrival > known:
                    break
                unfinished = [
                    q
                    for q in self.running
                    if not q.decoding
                    and q.processed + sum(t for p, t in parts if p is q) < q.prompt + q.before
                ]
                if unfinished:
                    break
                if r.ready:
                    n = len(self.decodes())
                    wider = self.width(n + 1) - self.width(n)
                    if rides and left < wider:
                        break
                    out = r.generated  # of a decode that comes from another lane
                    r.decoding, r.generated = True, max(out, 1)
                    if self.held([*self.running, r]) > self.capacity():
                        r.decoding, r.generated = False, out
                        break
                    if rides:
                        left -= wider
                    r.processed = r.prompt
                else:
                    self.find(r)
                    remaining = r.prompt + r.before - r.cached
                    room = min(left, own - sum(t for _, t in parts))
                    if policy.splits:
                        take = min(room, remaining)
                    else:
                        take = remaining if remaining <= room or not parts else 0
                    if take <= 0 or 0 < policy.most_prompts <= len(parts):
                        break
                    if self.used(r) > self.capacity():
                        break
                    self.hold(r)
                    r.processed = r.cached
                    r.stored = r.cached + take
                    parts.append((r, take))
                    left -= take
                if r.start is None:
                    r.start = now
                self.admissions += 1
                r.admitted = self.admissions
                self.running.append(self.waiting.pop(0))
        self.give_up()
        self.peak = max(self.peak, self.resident())
        riding = self.decodes() if rides or not parts else []
        if not riding and not parts:
            return False
        prompt_tokens = sum(take for _, take in parts)
        verified = self.width(len(riding))
        pairs = sum(take * r.processed + take * take / 2 for r, take in parts)
        context = sum(r.prompt + r.generated for r in riding)
        members = len(riding) + len(parts)
        drafting, n = lane.speculation, len(riding)
        duration = lane.step(
            prompt_tokens + verified, pairs, context, verified + len(parts), bool(parts)
        )
        drafts = verified // n - 1 if n else 0
        duration += drafting.draft_token * prompt_tokens
        duration += drafting.draft_step if drafts else 0.0
        duration += drafts * (
            drafting.draft_pass + drafting.draft_context * context + 2 * drafting.draft_token * n
        )
        if drafting.experts and not parts and drafts:
            duration -= experts(verified, lane.step.moe) - experts(
                verified, drafting.experts[drafts]
            )
        self.step = (now + duration, parts, bool(riding))
        self.steps += 1
        self.busy += duration
        self.prefill += duration if parts else 0.0
        self.batch += duration * members
        self.kv += duration * self.resident()
        return True

    def finish(self) -> list[Request]:
        """End the step under way; return the requests that end with it."""
        assert self.step is not None
        now, parts, riding = self.step
        self.now, self.step = now, None
        riders = self.decodes() if riding else []
        drafts = self.width(len(riders)) // len(riders) - 1 if riders else 0
        gains = [self.gain(r, drafts) for r in riders]
        emitted = list(riders)
        for r, take in parts:
            r.processed += take
            if r.processed == r.prompt + r.before:
                r.decoding = True
                emitted.append(r)
        ended = []
        interval = self.lane.stream_interval if self.streams else 1
        for r, gain in zip_longest(emitted, gains, fillvalue=1):
            r.generated += gain
            r.tokens += [now] * gain
            if r.message is None and r.generated >= min(interval, r.output):
                r.message = now
            if r.generated == r.output:
                r.end = now
                ended.append(r)
        # Those that end with their prompt leave after all others, as the prompts stand in the step.
        last = {r.number: i for i, (r, _) in enumerate(parts)}
        self.leaving = sorted(ended, key=lambda r: (last.get(r.number, -1), r.number))
        self.running = [r for r in self.running if r.end is None]
        self.reported = self.resident()
        if not (self.lane.async_scheduling and (self.running or self.waiting)):
            self.let_go()
        return ended


def uniform(start: int, count: int) -> float:
    """A 32-bit Weyl sequence, mixed (`bestserve.simulator.drafts` says whose constants)."""
    x = (start + 0x9E3779B9 * count) % 2**32
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = (x ^ x >> shift) * factor % 2**32
    return (x ^ x >> 15) / 2**32


def experts(tokens: int, table: tuple[float, ...]) -> float:
    """m(T) between the knots 2^(i/2), proportional beyond the last."""
    knots = [2 ** (i / 2) for i in range(len(table))]
    if tokens > knots[-1]:
        return table[-1] * tokens / knots[-1]
    return float(np.interp(tokens, knots, table))


@dataclass
class Sessions:
    """What requests share and in which order a session sends them (`PrefixTree`, in lists)."""

    parent: list[int]
    end: list[int]
    tip: list[int]
    own: list[int]
    key: list[int]
    follows: list[int]
    pause: list[float]

    def keys(self, i: int, tokens: int, block: int) -> tuple[list[Key], int]:
        """Keys of the full blocks of a request's tokens, and how many of them are shared."""
        path = []
        node = self.tip[i]
        while node >= 0:
            path.append(node)
            node = self.parent[node]
        out: list[Key] = []
        named = 0
        for j in range(tokens // block):
            inside = [s for s in reversed(path) if self.end[s] >= (j + 1) * block]
            if inside:
                out.append(("segment", inside[0], j))
                named += 1
            elif self.own[i] >= 0:
                out.append(("segment", self.own[i], j))
            else:
                out.append(("request", i, j))
        return out, named


def by_prefix(
    routing: str, servers: list[Server], records: list[Store], number: int, r: Request, key: int
) -> int:
    n = len(servers)
    home = int(key * 2654435761 % 2**32 * n // 2**32)
    loads = [s.outstanding() for s in servers]
    most = math.ceil(1.25 * (sum(loads) + 1) / n)
    if routing == "session_affine":
        return home
    if routing == "prefix_hash":
        return next((home + i) % n for i in range(n) if loads[(home + i) % n] < most)
    most = max(most, min(loads) + 8)
    prompt = r.keys[: r.prompt // servers[0].lane.kv_block]
    know = records if routing == "prefix_estimated" else servers
    turn = [(number + i) % n for i in range(n) if loads[(number + i) % n] < most]
    best = max(turn, key=lambda i: (know[i].match(prompt), -loads[i]))
    if routing == "prefix_estimated":
        records[best].touch(prompt)
    return best


def choose(routing: str, servers: list[Server], number: int, draws: np.ndarray, now: float) -> int:
    n = len(servers)
    if n == 1:
        return 0
    if routing == "random":
        return int(draws[number, 0] * n)
    if routing == "round_robin":
        return number % n
    if routing == "power_of_two":
        one, other = int(draws[number, 0] * n), int(draws[number, 1] * (n - 1))
        other += other >= one
        return min((one, other), key=lambda i: servers[i].outstanding())
    turn = [(number + i) % n for i in range(n)]
    if routing == "least_kv":
        return min(turn, key=lambda i: servers[i].load())
    if routing == "reported_kv":
        best = min(turn, key=lambda i: (now - servers[i].asked < 0.02, servers[i].reported))
        servers[best].asked = now
        return best
    return min(turn, key=lambda i: servers[i].outstanding())


def quickest(servers: list[Server], number: int, now: float, tokens: int) -> tuple[float, int]:
    n = len(servers)
    turn = [(number + i) % n for i in range(n)]
    best, least = turn[0], math.inf
    for i in turn:
        time = servers[i].predicted(now, tokens)
        if time < least - ROUNDING:
            best, least = i, time
    return least, best


@dataclass
class Pools:
    """Of a hybrid: which prompts go to the decode pool by share, which answers stay in front."""

    local: np.ndarray
    stays: np.ndarray

    def place(
        self, system: Hybrid, front: list[Server], back: list[Server], i: int, tokens: int
    ) -> str:
        local = bool(self.local[i])
        if system.longest_local > 0:
            local = tokens <= system.longest_local
        if system.prefill_queue > 0:
            local = local or sum(s.outstanding() for s in front) >= system.prefill_queue
        if system.routing == "least_ttft":
            some = local or system.longest_local == 0 or tokens <= system.longest_local
            return "either" if some else "front"
        return "back" if local else "front"


@dataclass
class Outcome:
    arrival: np.ndarray
    start: np.ndarray
    first: np.ndarray
    last: np.ndarray
    evictions: np.ndarray
    replica: np.ndarray
    decode_replica: np.ndarray
    hit: np.ndarray
    pools: list[list[Server]]
    duration: float
    tokens: list[list[float]]  # when each token came


def run(
    system: System,
    prompts: np.ndarray,
    outputs: np.ndarray,
    cached: np.ndarray,
    scheduled: np.ndarray,
    draws: np.ndarray,
    back_draws: np.ndarray,
    sessions: Sessions | None = None,
    pools: Pools | None = None,
    starts: np.ndarray | None = None,
    chances: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> Outcome:
    n = len(prompts)
    heads = len(scheduled)
    MOVES.update(away=0, back=0)
    tandem = not isinstance(system, Collocated)
    if isinstance(system, Collocated):
        front_lane, back_lane = system.lane, system.lane
        front = [Server(system.lane, True) for _ in range(system.replicas)]
        back: list[Server] = []
    else:
        front_lane, back_lane = system.prefill, system.decode
        streams = isinstance(system, Hybrid)
        front = [Server(front_lane, streams) for _ in range(system.prefill_replicas)]
        back = [Server(back_lane, True) for _ in range(system.decode_replicas)]
    records: list[Store] = []
    links_to: list[list[float]] = []
    tiers = system.caching.tiers if sessions is not None and system.caching is not None else ()
    if sessions is not None:
        shared = {t: Store(t.capacity_tokens // front_lane.kv_block) for t in tiers if t.shared}
        for s in front:
            s.users = {}
            s.tiers = [
                shared[t] if t.shared else Store(t.capacity_tokens // front_lane.kv_block)
                for t in tiers
            ]
            records.append(Store(capacity(front_lane)))
            links_to.append([0.0 for _ in tiers])
    follower = {f: i for i, f in enumerate(sessions.follows) if f >= 0} if sessions else {}
    loading: list[tuple[float, int]] = []
    coming: list[tuple[float, int]] = []
    held: dict[int, Request] = {}
    hit = np.full(n, -1)
    arrivals = system.arrivals
    closed = arrivals.kind == "closed"
    cap = arrivals.concurrency if closed else (arrivals.cap or n + 1)
    think = arrivals.think if closed else 0.0

    def released(i: int, now: float) -> None:
        """The client has request i's answer: its session goes on, or its place is free."""
        if i in follower and served(follower[i]):
            j = follower[i]
            assert sessions is not None
            coming.append((now + sessions.pause[j] + shift(i), j))
        else:
            free.append(now + think + shift(i))

    def served(i: int) -> bool:
        output = 1 if tandem else int(outputs[i])
        stays = pools is not None and bool(pools.stays[i])
        output = int(outputs[i]) if stays else output
        last = (
            not tandem
            or (pools is None and outputs[i] <= 1)
            or fits(back_lane, int(prompts[i]), int(outputs[i]))
        )
        before = sessions is None or sessions.follows[i] < 0 or served(sessions.follows[i])
        return before and last and fits(front_lane, int(prompts[i]), output)

    def fits(lane: Lane, prompt: int, output: int) -> bool:
        tokens = prompt + output - 1 + (lane.speculation.most if output > 1 else 0)
        return -(-tokens // lane.kv_block) <= capacity(lane)

    def drawn(i: int) -> dict[str, Any]:
        facts = {} if ranks is None else {"rank": int(ranks[i])}
        if starts is None or chances is None:
            return facts
        return facts | {"draw": int(starts[i]), "chances": list(chances[i])}

    out = {k: np.full(n, np.nan) for k in ("arrival", "start", "first", "last")}
    came: list[list[float]] = [[] for _ in range(n)]
    evictions = np.zeros(n, dtype=int)
    replica = np.full(n, -1)
    decode_replica = np.full(n, -1)
    free: list[float] = []
    landing: list[tuple[float, int]] = []
    flowing: list[tuple[float, int]] = []  # to prefill lanes
    afloat: dict[int, Request] = {}
    links: list[list[list[float]]] = [[] for _ in front]  # per sender: [work left, number]
    link_now = [0.0 for _ in front]
    following = flying = number = back_number = 0
    home: dict[int, float] = {}

    def link_end(sender: int) -> float:
        flows = links[sender]
        return link_now[sender] + min(f[0] for f in flows) * len(flows) if flows else math.inf

    def link_advance(sender: int, now: float) -> None:
        flows = links[sender]
        for f in flows:
            f[0] -= (now - link_now[sender]) / len(flows)
        link_now[sender] = now

    def shift(i: int) -> float:
        return front_lane.t_req + front_lane.t_req_token * float(prompts[i])

    def progress(r: Request, now: float) -> float:
        """TPOT so far over the objective of decodes that flow."""
        assert isinstance(system, Hybrid)
        assert system.flow is not None
        first = out["first"][r.number]
        first = r.message if np.isnan(first) else first
        return float((now - first) / ((r.generated - 1) * system.flow.tpot))

    def whole(r: Request, lane: Lane) -> int:
        return -(-int(prompts[r.number] + outputs[r.number]) // lane.kv_block)

    def set_afloat(server: Server, r: Request, now: float) -> tuple[float, int]:
        """Take a decode off its lane with all its tokens; when it comes to another one."""
        i = r.number
        server.running.remove(r)
        came[i] += r.tokens
        evictions[i] += r.evictions
        if np.isnan(out["first"][i]):
            out["start"][i], out["first"][i] = r.start, r.message
        tokens = int(prompts[i]) + r.generated
        there = now + system.transfer.latency + system.transfer.seconds_per_token * tokens
        again = Request(
            i, int(prompts[i]), int(outputs[i]), 0, True, there, r.generated, **drawn(i)
        )
        again.before = r.generated - 1
        again.start, again.message = out["start"][i], out["first"][i]
        afloat[i] = again
        return there, i

    def flow(now: float) -> None:
        """TaiChi's flowing decode: away from full decode lanes, back before it is too late."""
        assert isinstance(system, Hybrid)
        assert system.flow is not None
        kept_free = 1 - system.flow.watermark

        def candidates(server: Server) -> list[Request]:
            at_boundary = server.step is None and server.now == now
            return [r for r in server.decodes() if r.generated > 1] if at_boundary else []

        for server in back:
            while some := candidates(server):
                r = min(some, key=lambda r: (progress(r, now), r.number))
                if server.free() >= kept_free * server.capacity() or progress(r, now) > 0.75:
                    break
                if max(s.free() for s in front) < 2 * whole(r, front_lane):
                    break
                MOVES["away"] += 1
                flowing.append(set_afloat(server, r, now))
        for server in front:
            while some := candidates(server):
                r = min(some, key=lambda r: (-progress(r, now), r.number))
                room = max(s.free() for s in back) - kept_free * back[0].capacity()
                if progress(r, now) < 0.95 or room < whole(r, back_lane):
                    break
                MOVES["back"] += 1
                landing.append(set_afloat(server, r, now))

    while True:
        now = min(
            [s.event() for s in front + back]
            + free
            + [t for t, _ in landing + flowing]
            + [link_end(i) for i in range(len(links))]
            + [t for t, _ in loading + coming]
            + [max(scheduled[following], 0.0) if following < heads and flying < cap else math.inf]
        )
        if now == math.inf:
            break
        for index, server in enumerate(front):
            if server.step is None or server.step[0] > now:
                continue
            for r in server.finish():
                i = r.number
                out["start"][i], out["first"][i], out["last"][i] = r.start, r.message, r.end
                hit[i] = -1 if r.hit is None else r.hit
                came[i] += r.tokens
                evictions[i] += r.evictions
                if tandem and r.output < outputs[i]:
                    work = (
                        system.transfer.seconds_per_token
                        * (1 - system.transfer.overlap)
                        * float(prompts[i])
                    )
                    home[i] = now
                    if system.transfer.shared:
                        link_advance(index, now)
                        links[index].append([work, i])
                    else:
                        landing.append((now + system.transfer.latency + work, i))
                else:
                    released(i, now)
        for server in back:
            if server.step is None or server.step[0] > now:
                continue
            for r in server.finish():
                i = r.number
                out["last"][i] = r.end
                came[i] += r.tokens
                if back_lane.stream_interval > 1 or not r.ready_at_first:
                    out["first"][i] = r.message
                if not r.ready_at_first:
                    out["start"][i] = r.start
                evictions[i] += r.evictions
                released(i, now)
        for sender in range(len(links)):
            while link_end(sender) <= now:
                link_advance(sender, now)
                least = min(links[sender])
                links[sender].remove(least)
                landing.append((now + system.transfer.latency, int(least[1])))
        flying -= sum(t <= now for t in free)
        free = [t for t in free if t > now]
        for t, i in sorted(landing):
            if t <= now:
                lane = choose(system.routing, back, back_number % n, back_draws, now)
                back_number += 1
                decode_replica[i] = lane
                back[lane].take(
                    afloat.pop(i, None)
                    or Request(i, int(prompts[i]), int(outputs[i]), 0, True, t, **drawn(i))
                )
        landing = [(t, i) for t, i in landing if t > now]
        for t, i in sorted(flowing):
            if t <= now:
                max(front, key=lambda s: s.free()).take(afloat.pop(i))
        flowing = [(t, i) for t, i in flowing if t > now]
        for t, i in sorted(loading):
            if t <= now:
                server = front[int(replica[i])]
                server.coming -= 1
                held[i].arrival = t  # at the lane
                server.take(held[i])
        loading = [(t, i) for t, i in loading if t > now]
        due = [i for t, i in sorted(coming) if t <= now]
        coming = [(t, i) for t, i in coming if t > now]
        while due or (following < heads and flying < cap and scheduled[following] <= now):
            if due:
                i = due.pop(0)
            else:
                i = following
                following += 1
                flying += served(i)
            out["arrival"][i] = now
            if not served(i):
                continue
            stays = pools is not None and bool(pools.stays[i])
            output = 1 if tandem and not stays else int(outputs[i])
            tokens = int(prompts[i] - cached[i])
            where = "front"
            if pools is not None:
                assert isinstance(system, Hybrid)
                where = pools.place(system, front, back, i, tokens)
            at_back = where == "back"
            if where == "either":
                here = quickest(front, number, now, tokens)[0]
                at_back = quickest(back, number, now, tokens)[0] < here - ROUNDING
            if at_back:
                r = Request(
                    i, int(prompts[i]), int(outputs[i]), int(cached[i]), False, now, **drawn(i)
                )
                r.ready_at_first = False
                if system.routing == "least_ttft":
                    lane = quickest(back, number, now, tokens)[1]
                else:
                    lane = choose(system.routing, back, number, draws, now)
                number += 1
                decode_replica[i] = lane
                back[lane].take(r)
                continue
            r = Request(i, int(prompts[i]), output, int(cached[i]), False, now, **drawn(i))
            if sessions is not None:
                r.keys, r.named = sessions.keys(i, r.prompt + output - 1, front_lane.kv_block)
            if system.routing.startswith(("session", "prefix")) and len(front) > 1:
                assert sessions is not None
                lane = by_prefix(system.routing, front, records, number, r, sessions.key[i])
            elif system.routing == "least_ttft":
                lane = quickest(front, number, now, tokens)[1]
            else:
                lane = choose(system.routing, front, number, draws, now)
            number += 1
            replica[i] = lane
            server, ready = front[lane], now
            most = (r.prompt - 1) // front_lane.kv_block
            there = min(server.match(r.keys), most)
            for k, tier in enumerate(tiers):
                beyond = min(server.tiers[k].match(r.keys), most)
                if tier.peers:
                    beyond = min(
                        max((s.match(r.keys) for s in front if s != server), default=0), most
                    )
                if beyond > there:
                    cost = tier.seconds_per_token * front_lane.kv_block * (beyond - there)
                    links_to[lane][k] = max(now, links_to[lane][k]) + cost
                    ready = max(ready, links_to[lane][k] + tier.latency)
                    there = r.loaded = beyond
            if ready > now:
                held[i] = r
                loading.append((ready, i))
                server.coming += 1
            else:
                server.take(r)
        if isinstance(system, Hybrid) and system.flow is not None:
            flow(now)
        for server in front + back:
            if server.step is None and (server.running or server.waiting):
                server.start(now)
    for server in front + back:
        for number in server.late:
            evictions[number] += 1
    shifts = np.array([shift(i) for i in range(n)])
    return Outcome(
        out["arrival"],
        out["start"],
        out["first"] + shifts,
        out["last"] + shifts,
        evictions,
        replica,
        decode_replica,
        hit,
        [front, back] if tandem else [front],
        max((s.now for s in front + back), default=0.0),
        came,
    )
