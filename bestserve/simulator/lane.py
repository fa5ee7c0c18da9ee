"""One lane of an engine, advanced from event to event.

While nobody joins or leaves, n decode steps take n·t₀ + k·b·n(n−1)/2, because the context grows
by b tokens a step. The loop jumps to the earliest of the next departure, the first step boundary
at or after the next arrival and the step at which the KV cache is full; it costs a few
operations per event, however many tokens lie between.

Semantics (the naive loop in `tests/simulator/naive.py` says the same without jumping):

* A step starts at a boundary and ends at the next; who arrives at a boundary or before takes
  part. The queue is first come first served; evicted requests go to its head.
* A request needs l + j tokens of KV in its j-th decode step, in whole blocks. At admission it
  takes the blocks of its prompt and of the reserved share of its output, l + ⌊reserve·(o − 1)⌋.
* If the next step's blocks do not fit, the youngest running request is evicted until they do;
  its prompt and the tokens generated so far are processed again. Nobody is admitted then.
* A prompt is admitted if its blocks fit beside those that the next step needs. Without a reserve it
  takes them part by part, as it is processed.
* With asynchronous scheduling a step is formed when the one before it starts: it knows nobody who
  arrived since, and counts those who end meanwhile as running. If it has nothing to do, it is
  formed again when the one before has ended.
* With a prefix cache, blocks that nobody runs with stay where there is room (`block_cache`).
"""

from __future__ import annotations

import math

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import A_SEQ, A_STEP, PHI, A, K, token_time
from bestserve.simulator.block_cache import Cache, attach, detach, in_use, lookup, trim
from bestserve.simulator.heap import (
    FINISH,
    FIRST_MESSAGE,
    GROW,
    ITERATION_SHIFT,
    KIND_MASK,
    REQUEST_MASK,
    REQUEST_SHIFT,
    forget,
    pack,
    push,
    remove,
)
from bestserve.simulator.layout import (
    ADMISSIONS,
    ADMITTED,
    AHEAD,
    ARRIVAL,
    BATCH,
    BLOCK,
    BLOCKS,
    BUDGET,
    BUSY,
    CACHED,
    CONTEXT,
    DECODING,
    EVENTS,
    EVICTED,
    EVICTIONS,
    FIRST,
    FORMED,
    GENERATED,
    GROWING,
    GROWING_CONTEXT,
    HEAD,
    HELD,
    ITERATION,
    JOINING,
    JOURNAL_FIRST,
    JOURNAL_GROWTH,
    JOURNAL_START,
    JOURNAL_STEPS,
    KV,
    LAST,
    LEAVING,
    LEAVING_BLOCKS,
    MOST_PROMPTS,
    NEXT,
    NOW,
    OUTPUT,
    OUTSTANDING,
    PEAK,
    PREFILL,
    PROMPT,
    PROMPT_TOKENS,
    QUEUED_TOKENS,
    READY,
    RESERVE,
    RIDES,
    RIDING,
    ROOM,
    SAMPLES,
    SEEN,
    SERIES_BATCH,
    SERIES_KV,
    SERIES_LENGTH,
    SERIES_TIME,
    SLOTS,
    SPLIT,
    SPLIT_DONE,
    SPLITS,
    START,
    STEPPING,
    STEPS,
    STREAM,
    STRIDE,
    T_END,
    T_NEXT,
    TAIL,
    UNLIMITED,
)


@njit(cache=True)
def reserved_tokens(prompt: int, output: int, generated: int, reserve: float) -> int:
    """Return the KV tokens a request holds from its admission on [tokens]."""
    return max(prompt + int(reserve * (output - 1)), prompt + generated)


@njit(cache=True)
def in_blocks(tokens: int, block: int) -> int:
    """Return tokens rounded up to whole blocks [blocks]."""
    return (tokens + block - 1) // block


@njit(cache=True)
def tokens_taken(splits: bool, remaining: int, room: int, prompts: int) -> int:
    """Return how many of a prompt's `remaining` tokens a step with this room takes [tokens].

    prompts : already in the step; the first whole one goes whatever its length
    """
    if splits:
        return min(remaining, room)
    return remaining if remaining <= room or prompts == 0 else 0


@njit(cache=True)
def long_step(tokens: int, costs: Floats, moe: Floats) -> float:
    """Return what `token_time` returns, for steps longer than the table [s]."""
    return token_time(float(tokens), costs, moe)


@njit(cache=True)
def tokens_cost(tokens: int, table: Floats, costs: Floats, moe: Floats) -> float:
    """Return the part of the step time that depends on the token count alone [s]."""
    return table[tokens] if tokens < table.size else long_step(tokens, costs, moe)


@njit(cache=True)
def blocks_at_end(request: int, facts: Ints32, reserve: float, block: int) -> int:
    """Return the blocks that a request holds in its last step [blocks]."""
    prompt, output = facts[request, PROMPT], facts[request, OUTPUT]
    kept = reserved_tokens(prompt, output, facts[request, GENERATED], reserve)
    return in_blocks(max(kept, prompt + output - 1), block)


@njit(cache=True)
def growing_blocks(context: int, phases: Ints, lane: int, iteration: int, block: int) -> int:
    """Return Σ⌈cᵢ/block⌉ over the growing requests in the next step [blocks].

    context : Σcᵢ; phases[lane, p] : how many have (cᵢ − iteration) mod block = p, which never
    changes while a request decodes.
    """
    padding = 0
    for p in range(block):
        padding += phases[lane, p] * ((-(p + iteration)) % block)
    return (context + padding) // block


@njit(cache=True)
def steps_to(gap: float, first: float, growth: float) -> int:
    """Return the least n ≥ 1 with n·first + growth·n(n−1)/2 ≥ gap."""
    b = first - 0.5 * growth
    n = math.ceil(2.0 * gap / (b + math.sqrt(b * b + 2.0 * growth * gap)))
    n = max(n, 1)
    # The root is rounded; the boundary itself decides.
    while n * first + growth * (0.5 * n * (n - 1)) < gap:
        n += 1
    while n > 1 and (n - 1) * first + growth * (0.5 * (n - 1) * (n - 2)) >= gap:
        n -= 1
    return n


@njit(cache=True)
def sample(series: Floats, state: Ints, lane: int, now: float, batch: int, kv: int) -> None:
    """Keep one point of the lane's series; when full, drop every second one, now and later."""
    n = state[lane, SAMPLES]
    if n == SERIES_LENGTH:
        for i in range(SERIES_LENGTH // 2):
            for j in range(3):
                series[lane, i, j] = series[lane, 2 * i, j]
        n = SERIES_LENGTH // 2
        state[lane, STRIDE] *= 2
    series[lane, n, SERIES_TIME] = now
    series[lane, n, SERIES_BATCH] = batch
    series[lane, n, SERIES_KV] = kv
    state[lane, SAMPLES] = n + 1


@njit(cache=True)
def write(
    journals: Floats, lane: int, entry: int, now: float, n: int, first: float, growth: float
) -> None:
    """Note n decode steps from `now` on, the first of which takes `first` [s]."""
    journals[lane, entry, JOURNAL_START] = now
    journals[lane, entry, JOURNAL_STEPS] = n
    journals[lane, entry, JOURNAL_FIRST] = first
    journals[lane, entry, JOURNAL_GROWTH] = growth


@njit(cache=True)
def advance(
    lane: int,
    until: float,
    before: float,
    clock: Floats,
    state: Ints,
    heaps: Ints,
    phases: Ints,
    joins: Ints,
    series: Floats,
    journals: Floats,
    times: Floats,
    facts: Ints32,
    limits: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
    done: Ints,
    cache: Cache,
) -> int:
    """Process the lane's events up to `until` [s] and return how many requests ended.

    Steps end at or before `until`; new ones start at or before it too, and before `before`. With a
    non-empty `done`, it returns after the first boundary at which requests ended and lists them
    there. Whatever has not ended stays as it is, to be continued by the next call.

    cache : of prefixes, or `NO_CACHE`

    All phases stand in one function: a compiled call counts the references of its arrays, which
    takes five times as long as the phase itself.
    """
    s, c = state[lane], clock[lane]
    slots, budget, room = limits[SLOTS], limits[BUDGET], limits[ROOM]
    splits, rides, most_prompts = limits[SPLITS] != 0, limits[RIDES] != 0, limits[MOST_PROMPTS]
    block, blocks, stream = limits[BLOCK], limits[BLOCKS], limits[STREAM]
    k, a_step, a_seq, reserve = costs[K], costs[A_STEP], costs[A_SEQ], costs[RESERVE]
    finite = blocks < UNLIMITED
    grows = finite and reserve < 1.0
    by_chunk = finite and reserve == 0.0
    ahead = limits[AHEAD] != 0
    ended = 0
    t_next = math.inf

    while True:
        if s[STEPPING] != 0:
            if c[T_END] > until:
                t_next = c[T_END]
                break
            # End of a step: the context of each decode in it grows by a token.
            c[NOW] = c[T_END]
            s[STEPPING] = 0
            if s[RIDING] != 0:
                s[ITERATION] += 1
                s[CONTEXT] += s[DECODING]
                s[GROWING_CONTEXT] += s[GROWING]
        else:
            if c[NOW] > until or c[NOW] >= before:
                t_next = c[NOW]
                break
            if not ahead:
                c[FORMED] = c[NOW]
            if s[DECODING] == 0 and s[SPLIT] < 0:
                if s[HEAD] < 0:
                    s[LEAVING] = 0
                    s[LEAVING_BLOCKS] = 0
                    break
                arrival = times[s[HEAD], ARRIVAL]
                if arrival > c[FORMED]:
                    if arrival > c[NOW]:
                        if arrival > until or arrival >= before:
                            t_next = arrival
                            break
                        c[NOW] = arrival
                    s[LEAVING] = 0
                    s[LEAVING_BLOCKS] = 0
                    c[FORMED] = c[NOW]
                # An idle lane may count from 0 again, which keeps packed iterations small.
                s[ITERATION] = 0

            # Eviction: the youngest go until the next step's KV fits.
            evicted = False
            usable = blocks - s[LEAVING_BLOCKS]
            coming = 0  # blocks of the next part of the prompt under way
            if by_chunk and s[SPLIT] >= 0:
                part = facts[s[SPLIT], PROMPT] + facts[s[SPLIT], GENERATED] - s[SPLIT_DONE]
                part = max(min(part, budget - s[DECODING] if rides else budget, room), 0)
                coming = in_blocks(s[SPLIT_DONE] + part, block) - in_blocks(s[SPLIT_DONE], block)
            crowded = s[GROWING] + coming > 0 and (
                s[GROWING_CONTEXT] + s[GROWING] * (block - 1) > (usable - s[HELD] - coming) * block
            )
            while crowded and (
                growing_blocks(s[GROWING_CONTEXT], phases, lane, s[ITERATION], block)
                + s[HELD]
                + coming
                > usable
            ):
                evicted = True
                if s[SPLIT] >= 0:
                    youngest = s[SPLIT]
                    s[SPLIT] = -1
                    prompt, generated = facts[youngest, PROMPT], facts[youngest, GENERATED]
                    tokens = prompt + generated
                    kept = reserved_tokens(prompt, facts[youngest, OUTPUT], generated, reserve)
                    s[HELD] -= in_blocks(s[SPLIT_DONE] if by_chunk else kept, block)
                    coming = 0
                    s[PROMPT_TOKENS] -= tokens
                    computed = s[SPLIT_DONE]
                else:
                    youngest = -1
                    finish = 0
                    for i in range(s[EVENTS]):
                        if heaps[lane, i] & KIND_MASK == FINISH:
                            r = (heaps[lane, i] >> REQUEST_SHIFT) & REQUEST_MASK
                            if youngest < 0 or facts[r, ADMITTED] > facts[youngest, ADMITTED]:
                                youngest = r
                                finish = heaps[lane, i] >> ITERATION_SHIFT
                    leaver = -1
                    for i in range(0 if cache.on else s[LEAVING]):
                        r = joins[lane, slots + i]
                        if facts[r, ADMITTED] > facts[youngest, ADMITTED]:
                            youngest, leaver = r, i
                    if leaver >= 0:
                        # It ends with the step under way: only its blocks go.
                        gone = blocks_at_end(youngest, facts, reserve, block)
                        usable += gone
                        s[LEAVING_BLOCKS] -= gone
                        s[LEAVING] -= 1
                        joins[lane, slots + leaver] = joins[lane, slots + s[LEAVING]]
                        facts[youngest, EVICTIONS] += 1
                        s[EVICTED] += 1
                        continue
                    s[EVENTS] = forget(heaps, lane, s[EVENTS], youngest)
                    prompt, output = facts[youngest, PROMPT], facts[youngest, OUTPUT]
                    kept = reserved_tokens(prompt, output, facts[youngest, GENERATED], reserve)
                    generated = output - (finish - s[ITERATION])
                    tokens = prompt + generated
                    if tokens > kept:
                        s[GROWING] -= 1
                        s[GROWING_CONTEXT] -= tokens
                        phases[lane, (tokens - s[ITERATION]) % block] -= 1
                    else:
                        s[HELD] -= in_blocks(kept, block)
                    facts[youngest, GENERATED] = generated
                    s[DECODING] -= 1
                    s[CONTEXT] -= tokens
                    computed = tokens - 1
                if cache.on:
                    s[HELD] += detach(cache, lane, youngest, computed // block, c[NOW])
                facts[youngest, EVICTIONS] += 1
                facts[youngest, READY] = 0
                facts[youngest, NEXT] = s[HEAD]
                if s[HEAD] < 0:
                    s[TAIL] = youngest
                s[HEAD] = youngest
                s[QUEUED_TOKENS] += tokens
                s[EVICTED] += 1

            # Admission: the prompt under way, then the queue in order, as far as the room goes.
            prompts = 0
            tokens_in = 0
            pairs = 0.0
            waits = False
            if not evicted:
                left = budget - s[DECODING] if rides else budget
                if s[SPLIT] >= 0:
                    r = s[SPLIT]
                    whole = facts[r, PROMPT] + facts[r, GENERATED]
                    take = min(whole - s[SPLIT_DONE], left, room)
                    if take > 0:
                        pairs += take * (s[SPLIT_DONE] + 0.5 * take)
                        tokens_in += take
                        left -= take
                        prompts += 1
                        s[HELD] += coming
                        s[SPLIT_DONE] += take
                        if s[SPLIT_DONE] == whole:
                            joins[lane, s[JOINING]] = r
                            s[JOINING] += 1
                            s[SPLIT] = -1
                taken = s[DECODING] + s[LEAVING]
                while s[HEAD] >= 0 and s[SPLIT] < 0 and taken + s[JOINING] < slots:
                    r = s[HEAD]
                    if times[r, ARRIVAL] > c[FORMED]:
                        waits = True
                        break
                    whole = facts[r, PROMPT] + facts[r, GENERATED]
                    ready = facts[r, READY] != 0
                    remaining = 0
                    take = 0
                    if ready:
                        if rides and left < 1:
                            break
                    else:
                        if cache.on:
                            if finite:
                                grown = growing_blocks(
                                    s[GROWING_CONTEXT], phases, lane, s[ITERATION], block
                                )
                                trim(cache, 0, lane, blocks - s[HELD] - grown, c[NOW])
                            facts[r, CACHED] = lookup(cache, lane, r, whole, block)
                        remaining = whole - facts[r, CACHED]
                        take = tokens_taken(splits, remaining, min(left, room - tokens_in), prompts)
                        if take == 0 or prompts >= most_prompts:
                            break
                    kept = 0
                    need = 0
                    in_common = 0
                    if finite:
                        kept = reserved_tokens(
                            facts[r, PROMPT], facts[r, OUTPUT], facts[r, GENERATED], reserve
                        )
                        need = in_blocks(kept, block)
                        # A request that decodes at once needs the block of its next token too.
                        ask = in_blocks(max(kept, whole + 1), block) if ready else need
                        if cache.on and not ready:
                            in_common = in_use(cache, lane, r)
                        held = s[HELD] + ask - in_common
                        if (
                            s[GROWING_CONTEXT] + s[GROWING] * (block - 1) > (usable - held) * block
                            and growing_blocks(
                                s[GROWING_CONTEXT], phases, lane, s[ITERATION], block
                            )
                            + held
                            > usable
                        ):
                            break
                    s[HEAD] = facts[r, NEXT]
                    s[ADMISSIONS] += 1
                    facts[r, ADMITTED] = s[ADMISSIONS]
                    if times[r, START] < 0.0:
                        times[r, START] = c[NOW]
                    if ready:
                        if rides:
                            left -= 1
                        # The prefill instance has sent the first token already.
                        s[DECODING] += 1
                        taken += 1
                        s[CONTEXT] += whole + 1
                        s[QUEUED_TOKENS] -= whole
                        rest = facts[r, OUTPUT] - 1
                        message = min(stream - 1, rest)
                        s[EVENTS] = push(
                            heaps, lane, s[EVENTS], pack(s[ITERATION] + rest, r, FINISH)
                        )
                        if times[r, FIRST] < 0.0 and 0 < message < rest:
                            event = pack(s[ITERATION] + message, r, FIRST_MESSAGE)
                            s[EVENTS] = push(heaps, lane, s[EVENTS], event)
                        if not grows or kept > whole:
                            s[HELD] += in_blocks(kept, block)
                            if grows and kept < facts[r, PROMPT] + facts[r, OUTPUT] - 1:
                                event = pack(s[ITERATION] + kept - whole, r, GROW)
                                s[EVENTS] = push(heaps, lane, s[EVENTS], event)
                        else:
                            s[GROWING] += 1
                            s[GROWING_CONTEXT] += whole + 1
                            phases[lane, (whole + 1 - s[ITERATION]) % block] += 1
                        continue
                    if by_chunk and take < remaining:
                        need = in_blocks(facts[r, CACHED] + take, block)
                    s[HELD] += need - in_common
                    if cache.on:
                        attach(cache, lane, r, facts[r, CACHED], c[NOW])
                    s[PROMPT_TOKENS] += whole
                    pairs += take * (facts[r, CACHED] + 0.5 * take)
                    tokens_in += take
                    left -= take
                    prompts += 1
                    if take < remaining:
                        s[SPLIT] = r
                        s[SPLIT_DONE] = facts[r, CACHED] + take
                    else:
                        joins[lane, s[JOINING]] = r
                        s[JOINING] += 1
            decoding = s[DECODING]
            kv = s[CONTEXT] + s[PROMPT_TOKENS]
            s[PEAK] = max(s[PEAK], kv)

            if ahead and decoding == 0 and prompts == 0 and s[SPLIT] < 0 and not evicted:
                # Nothing to do for whom it knew of: formed again when those have left.
                s[LEAVING] = 0
                s[LEAVING_BLOCKS] = 0
                c[FORMED] = c[NOW]
                continue

            # Choice: a step with prompts, or after an eviction, is taken by itself.
            if prompts > 0 or evicted:
                riding = rides or prompts == 0
                batch = prompts + decoding if riding else prompts
                tokens = tokens_in + decoding if riding else tokens_in
                device = tokens_cost(tokens, table, costs, moe) + costs[A] * pairs
                if riding:
                    device += k * s[CONTEXT]
                duration = a_step + a_seq * batch + (costs[PHI] if prompts > 0 else 1.0) * device
                if cache.on and finite:
                    grown = growing_blocks(s[GROWING_CONTEXT], phases, lane, s[ITERATION], block)
                    trim(cache, 0, lane, blocks - s[HELD] - grown, c[NOW])
                s[LEAVING] = 0
                s[LEAVING_BLOCKS] = 0
                c[FORMED] = c[NOW]
                c[T_END] = c[NOW] + duration
                s[RIDING] = riding
                s[STEPPING] = 1
                s[STEPS] += 1
                c[BUSY] += duration
                if prompts > 0:
                    c[PREFILL] += duration
                c[BATCH] += duration * batch
                c[KV] += duration * kv
                if s[SEEN] < journals.shape[1]:
                    write(journals, lane, s[SEEN], c[NOW], 1 if riding else 0, duration, 0.0)
                s[SEEN] += 1
                if s[SEEN] % s[STRIDE] == 0:
                    sample(series, state, lane, c[NOW], batch, kv)
                continue

            # Jump over decode steps: to the next departure, a full KV cache, an arrival.
            n = (heaps[lane, 0] >> ITERATION_SHIFT) - s[ITERATION]
            if s[GROWING] > 0:
                free = (usable - s[HELD]) * block - s[GROWING_CONTEXT] - s[GROWING] * (block - 1)
                n = min(n, max(free // s[GROWING] + 1, 1))
            t0 = a_step + a_seq * decoding + tokens_cost(decoding, table, costs, moe)
            t0 += k * s[CONTEXT]
            slope = k * decoding
            duration = n * t0 + slope * (0.5 * n * (n - 1))
            if waits:
                gap = times[s[HEAD], ARRIVAL] - c[NOW]
                if gap < duration:
                    known = steps_to(gap, t0, slope) if gap > 0.0 else 0
                    n = min(n, known + 1 if ahead else known)
                    duration = n * t0 + slope * (0.5 * n * (n - 1))
            elif s[LEAVING] > 0 and s[HEAD] >= 0:
                n = 1
                duration = t0
            if c[NOW] + duration > until:
                t_next = c[NOW] + duration
                break
            half = 0.5 * n * (n - 1)
            s[STEPS] += n
            c[BUSY] += duration
            c[BATCH] += duration * decoding
            c[KV] += (
                n * t0 * kv
                + half * (decoding * t0 + slope * kv)
                + decoding * slope * half * (2 * n - 1) / 3.0
            )
            if s[SEEN] < journals.shape[1]:
                write(journals, lane, s[SEEN], c[NOW], n, t0, slope)
            s[SEEN] += 1
            if s[SEEN] % s[STRIDE] == 0:
                sample(series, state, lane, c[NOW], decoding, kv)
            s[LEAVING] = 0
            s[LEAVING_BLOCKS] = 0
            c[FORMED] = c[NOW] + (duration - t0 - slope * (n - 1))
            if cache.on and finite:
                context = s[GROWING_CONTEXT] + (n - 1) * s[GROWING]
                grown = growing_blocks(context, phases, lane, s[ITERATION] + n - 1, block)
                trim(cache, 0, lane, blocks - s[HELD] - grown, c[NOW])
            c[NOW] += duration
            s[ITERATION] += n
            s[CONTEXT] += n * decoding
            s[GROWING_CONTEXT] += n * s[GROWING]
            s[PEAK] = max(s[PEAK], s[CONTEXT] - decoding + s[PROMPT_TOKENS])

        ended_earlier = ended

        # Events of this boundary: departures, first messages, reserves used up.
        while s[EVENTS] > 0 and heaps[lane, 0] >> ITERATION_SHIFT == s[ITERATION]:
            event = heaps[lane, 0]
            r = (event >> REQUEST_SHIFT) & REQUEST_MASK
            kind = event & KIND_MASK
            s[EVENTS] = remove(heaps, lane, s[EVENTS], 0)
            prompt = facts[r, PROMPT]
            output = facts[r, OUTPUT]
            if kind == FINISH:
                if times[r, FIRST] < 0.0:
                    times[r, FIRST] = c[NOW]
                times[r, LAST] = c[NOW]
                s[DECODING] -= 1
                s[CONTEXT] -= prompt + output
                if finite:
                    kept = reserved_tokens(prompt, output, facts[r, GENERATED], reserve)
                    if grows and kept < prompt + output - 1:
                        s[GROWING] -= 1
                        s[GROWING_CONTEXT] -= prompt + output
                        phases[lane, (prompt + output - s[ITERATION]) % block] -= 1
                    else:
                        s[HELD] -= in_blocks(kept, block)
                if ahead:
                    joins[lane, slots + s[LEAVING]] = r
                    s[LEAVING] += 1
                    if not cache.on:
                        s[LEAVING_BLOCKS] += blocks_at_end(r, facts, reserve, block)
                if cache.on:
                    full = (prompt + output - 1) // block
                    s[HELD] += detach(cache, lane, r, full, c[NOW])
                if done.size > 0:
                    done[ended] = r
                ended += 1
            elif kind == FIRST_MESSAGE:
                times[r, FIRST] = c[NOW]
            else:
                kept = reserved_tokens(prompt, output, facts[r, GENERATED], reserve)
                s[HELD] -= in_blocks(kept, block)
                s[GROWING] += 1
                s[GROWING_CONTEXT] += kept + 1
                phases[lane, (kept + 1 - s[ITERATION]) % block] += 1

        # Completed prompts decode from now on, or end with their first token.
        for i in range(s[JOINING]):
            r = joins[lane, i]
            prompt = facts[r, PROMPT]
            output = facts[r, OUTPUT]
            generated = facts[r, GENERATED]
            whole = prompt + generated
            s[PROMPT_TOKENS] -= whole
            s[QUEUED_TOKENS] -= whole
            rest = output - generated - 1
            message = min(stream, output) - generated - 1
            if times[r, FIRST] < 0.0:
                if message <= 0:
                    times[r, FIRST] = c[NOW]
                elif message < rest:
                    event = pack(s[ITERATION] + message, r, FIRST_MESSAGE)
                    s[EVENTS] = push(heaps, lane, s[EVENTS], event)
            kept = reserved_tokens(prompt, output, generated, reserve) if finite else 0
            if rest == 0:
                times[r, LAST] = c[NOW]
                if ahead:
                    joins[lane, slots + s[LEAVING]] = r
                    s[LEAVING] += 1
                    if not cache.on:
                        s[LEAVING_BLOCKS] += blocks_at_end(r, facts, reserve, block)
                if finite:
                    s[HELD] -= in_blocks(kept, block)
                if cache.on:
                    full = (prompt + output - 1) // block
                    s[HELD] += detach(cache, lane, r, full, c[NOW])
                if done.size > 0:
                    done[ended] = r
                ended += 1
                continue
            s[DECODING] += 1
            s[CONTEXT] += whole + 1
            s[EVENTS] = push(heaps, lane, s[EVENTS], pack(s[ITERATION] + rest, r, FINISH))
            if grows:
                if kept == whole:
                    s[HELD] -= in_blocks(kept, block)
                    s[GROWING] += 1
                    s[GROWING_CONTEXT] += whole + 1
                    phases[lane, (whole + 1 - s[ITERATION]) % block] += 1
                elif kept < prompt + output - 1:
                    event = pack(s[ITERATION] + kept - whole, r, GROW)
                    s[EVENTS] = push(heaps, lane, s[EVENTS], event)
        s[JOINING] = 0
        if ended > ended_earlier and done.size > 0:
            t_next = c[NOW]
            break

    c[T_NEXT] = t_next
    s[OUTSTANDING] -= ended
    return ended
