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
* A prompt is admitted if its blocks fit beside those that the next step needs.
"""

from __future__ import annotations

import math

from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import A_SEQ, A_STEP, PHI, A, K, token_time
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
    Floats,
    Ints32,
    Ints64,
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
def growing_blocks(context: int, phases: Ints64, lane: int, iteration: int, block: int) -> int:
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
def sample(series: Floats, state: Ints64, lane: int, now: float, batch: int, kv: int) -> None:
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
    state: Ints64,
    heaps: Ints64,
    phases: Ints64,
    joins: Ints64,
    series: Floats,
    journals: Floats,
    times: Floats,
    facts: Ints32,
    limits: Ints64,
    costs: Floats,
    moe: Floats,
    table: Floats,
    done: Ints64,
) -> int:
    """Process the lane's events up to `until` [s] and return how many requests ended.

    Steps end at or before `until`; new ones start at or before it too, and before `before`. With a
    non-empty `done`, it returns after the first boundary at which requests ended and lists them
    there. Whatever has not ended stays as it is, to be continued by the next call.
    """
    slots, budget, room = limits[SLOTS], limits[BUDGET], limits[ROOM]
    splits, rides, most_prompts = limits[SPLITS] != 0, limits[RIDES] != 0, limits[MOST_PROMPTS]
    block, blocks, stream = limits[BLOCK], limits[BLOCKS], limits[STREAM]
    k, a_step, a_seq, reserve = costs[K], costs[A_STEP], costs[A_SEQ], costs[RESERVE]
    finite = blocks < UNLIMITED
    grows = finite and reserve < 1.0

    now = clock[lane, NOW]
    iteration = state[lane, ITERATION]
    decoding = state[lane, DECODING]
    context = state[lane, CONTEXT]
    events = state[lane, EVENTS]
    head = state[lane, HEAD]
    split = state[lane, SPLIT]
    split_done = state[lane, SPLIT_DONE]
    joining = state[lane, JOINING]
    stepping = state[lane, STEPPING] != 0
    riding = state[lane, RIDING] != 0
    t_end = clock[lane, T_END]
    growing = state[lane, GROWING]
    growing_context = state[lane, GROWING_CONTEXT]
    held = state[lane, HELD]
    prompt_tokens = state[lane, PROMPT_TOKENS]
    queued = state[lane, QUEUED_TOKENS]
    busy, prefill, batch_area, kv_area = (
        clock[lane, BUSY],
        clock[lane, PREFILL],
        clock[lane, BATCH],
        clock[lane, KV],
    )
    steps, seen, peak = state[lane, STEPS], state[lane, SEEN], state[lane, PEAK]
    ended = 0
    t_next = math.inf

    while True:
        if stepping:
            if t_end > until:
                t_next = t_end
                break
            now = t_end
            stepping = False
            if riding:
                iteration += 1
                context += decoding
                growing_context += growing
        else:
            if now > until or now >= before:
                t_next = now
                break
            if decoding == 0 and split < 0:
                if head < 0:
                    break
                arrival = times[head, ARRIVAL]
                if arrival > now:
                    if arrival > until or arrival >= before:
                        t_next = arrival
                        break
                    now = arrival
                # An idle lane may count from 0 again, which keeps packed iterations small.
                iteration = 0

            evicted = False
            if growing > 0 and growing_context + growing * (block - 1) > (blocks - held) * block:
                while (
                    growing_blocks(growing_context, phases, lane, iteration, block) + held > blocks
                ):
                    evicted = True
                    if split >= 0:
                        youngest = split
                        split = -1
                        tokens = facts[youngest, PROMPT] + facts[youngest, GENERATED]
                        held -= in_blocks(
                            reserved_tokens(
                                facts[youngest, PROMPT],
                                facts[youngest, OUTPUT],
                                facts[youngest, GENERATED],
                                reserve,
                            ),
                            block,
                        )
                        prompt_tokens -= tokens
                    else:
                        youngest = -1
                        finish = 0
                        for i in range(events):
                            if heaps[lane, i] & KIND_MASK == FINISH:
                                r = (heaps[lane, i] >> REQUEST_SHIFT) & REQUEST_MASK
                                if youngest < 0 or facts[r, ADMITTED] > facts[youngest, ADMITTED]:
                                    youngest = r
                                    finish = heaps[lane, i] >> ITERATION_SHIFT
                        events = forget(heaps, lane, events, youngest)
                        prompt = facts[youngest, PROMPT]
                        output = facts[youngest, OUTPUT]
                        kept = reserved_tokens(prompt, output, facts[youngest, GENERATED], reserve)
                        generated = output - (finish - iteration)
                        tokens = prompt + generated
                        if tokens > kept:
                            growing -= 1
                            growing_context -= tokens
                            phases[lane, (tokens - iteration) % block] -= 1
                        else:
                            held -= in_blocks(kept, block)
                        facts[youngest, GENERATED] = generated
                        decoding -= 1
                        context -= tokens
                    facts[youngest, EVICTIONS] += 1
                    facts[youngest, READY] = 0
                    facts[youngest, NEXT] = head
                    if head < 0:
                        state[lane, TAIL] = youngest
                    head = youngest
                    queued += tokens
                    state[lane, EVICTED] += 1

            prompts = 0
            tokens_in = 0
            pairs = 0.0
            waits = False
            if not evicted:
                left = budget - decoding if rides else budget
                if split >= 0:
                    whole = facts[split, PROMPT] + facts[split, GENERATED]
                    take = min(whole - split_done, left, room)
                    if take > 0:
                        pairs += take * (split_done + 0.5 * take)
                        tokens_in += take
                        left -= take
                        prompts += 1
                        split_done += take
                        if split_done == whole:
                            joins[lane, joining] = split
                            joining += 1
                            split = -1
                while head >= 0 and split < 0 and decoding + joining < slots:
                    r = head
                    if times[r, ARRIVAL] > now:
                        waits = True
                        break
                    prompt = facts[r, PROMPT]
                    generated = facts[r, GENERATED]
                    whole = prompt + generated
                    ready = facts[r, READY] != 0
                    remaining = 0
                    take = 0
                    if ready:
                        if rides and left < 1:
                            break
                    else:
                        remaining = whole - facts[r, CACHED]
                        take = tokens_taken(splits, remaining, min(left, room - tokens_in), prompts)
                        if take == 0 or prompts >= most_prompts:
                            break
                    kept = 0
                    need = 0
                    if finite:
                        kept = reserved_tokens(prompt, facts[r, OUTPUT], generated, reserve)
                        need = in_blocks(kept, block)
                        # A request that decodes at once needs the block of its next token too.
                        ask = in_blocks(max(kept, whole + 1), block) if ready else need
                        if (
                            growing_context + growing * (block - 1) > (blocks - held - ask) * block
                            and growing_blocks(growing_context, phases, lane, iteration, block)
                            + held
                            + ask
                            > blocks
                        ):
                            break
                    head = facts[r, NEXT]
                    state[lane, ADMISSIONS] += 1
                    facts[r, ADMITTED] = state[lane, ADMISSIONS]
                    if times[r, START] < 0.0:
                        times[r, START] = now
                    if ready:
                        # The prefill instance has sent the first token already.
                        if rides:
                            left -= 1
                        decoding += 1
                        context += whole + 1
                        queued -= whole
                        rest = facts[r, OUTPUT] - 1
                        message = min(stream - 1, rest)
                        events = push(heaps, lane, events, pack(iteration + rest, r, FINISH))
                        if times[r, FIRST] < 0.0 and 0 < message < rest:
                            events = push(
                                heaps, lane, events, pack(iteration + message, r, FIRST_MESSAGE)
                            )
                        if grows:
                            if kept > whole:
                                held += need
                                if kept < prompt + facts[r, OUTPUT] - 1:
                                    events = push(
                                        heaps, lane, events, pack(iteration + kept - whole, r, GROW)
                                    )
                            else:
                                growing += 1
                                growing_context += whole + 1
                                phases[lane, (whole + 1 - iteration) % block] += 1
                        else:
                            held += need
                        continue
                    held += need
                    prompt_tokens += whole
                    pairs += take * (facts[r, CACHED] + 0.5 * take)
                    tokens_in += take
                    left -= take
                    prompts += 1
                    if take < remaining:
                        split = r
                        split_done = facts[r, CACHED] + take
                    else:
                        joins[lane, joining] = r
                        joining += 1

            if peak < context + prompt_tokens:
                peak = context + prompt_tokens
            if prompts > 0 or evicted:
                riding = rides or prompts == 0
                batch = prompts + decoding if riding else prompts
                tokens = tokens_in + decoding if riding else tokens_in
                device = tokens_cost(tokens, table, costs, moe) + costs[A] * pairs
                if riding:
                    device += k * context
                duration = a_step + a_seq * batch + (costs[PHI] if prompts > 0 else 1.0) * device
                t_end = now + duration
                stepping = True
                steps += 1
                busy += duration
                if prompts > 0:
                    prefill += duration
                batch_area += duration * batch
                kv_area += duration * (context + prompt_tokens)
                if seen < journals.shape[1]:
                    write(journals, lane, seen, now, 1 if riding else 0, duration, 0.0)
                seen += 1
                if seen % state[lane, STRIDE] == 0:
                    sample(series, state, lane, now, batch, context + prompt_tokens)
                continue

            n = (heaps[lane, 0] >> ITERATION_SHIFT) - iteration
            if growing > 0:
                free = (blocks - held) * block - growing_context - growing * (block - 1)
                n = min(n, max(free // growing + 1, 1))
            t0 = a_step + a_seq * decoding + tokens_cost(decoding, table, costs, moe) + k * context
            slope = k * decoding
            duration = n * t0 + slope * (0.5 * n * (n - 1))
            if waits:
                gap = times[head, ARRIVAL] - now
                if gap < duration:
                    n = min(n, steps_to(gap, t0, slope))
                    duration = n * t0 + slope * (0.5 * n * (n - 1))
            if now + duration > until:
                t_next = now + duration
                break
            half = 0.5 * n * (n - 1)
            steps += n
            busy += duration
            batch_area += duration * decoding
            kv_area += (
                n * t0 * (context + prompt_tokens)
                + half * (decoding * t0 + slope * (context + prompt_tokens))
                + decoding * slope * half * (2 * n - 1) / 3.0
            )
            if seen < journals.shape[1]:
                write(journals, lane, seen, now, n, t0, slope)
            seen += 1
            if seen % state[lane, STRIDE] == 0:
                sample(series, state, lane, now, decoding, context + prompt_tokens)
            now += duration
            iteration += n
            context += n * decoding
            growing_context += n * growing
            if peak < context - decoding + prompt_tokens:
                peak = context - decoding + prompt_tokens

        ended_earlier = ended
        while events > 0 and heaps[lane, 0] >> ITERATION_SHIFT == iteration:
            event = heaps[lane, 0]
            r = (event >> REQUEST_SHIFT) & REQUEST_MASK
            kind = event & KIND_MASK
            events = remove(heaps, lane, events, 0)
            prompt = facts[r, PROMPT]
            output = facts[r, OUTPUT]
            if kind == FINISH:
                if times[r, FIRST] < 0.0:
                    times[r, FIRST] = now
                times[r, LAST] = now
                decoding -= 1
                context -= prompt + output
                if finite:
                    kept = reserved_tokens(prompt, output, facts[r, GENERATED], reserve)
                    if grows and kept < prompt + output - 1:
                        growing -= 1
                        growing_context -= prompt + output
                        phases[lane, (prompt + output - iteration) % block] -= 1
                    else:
                        held -= in_blocks(kept, block)
                if done.size > 0:
                    done[ended] = r
                ended += 1
            elif kind == FIRST_MESSAGE:
                times[r, FIRST] = now
            else:
                kept = reserved_tokens(prompt, output, facts[r, GENERATED], reserve)
                held -= in_blocks(kept, block)
                growing += 1
                growing_context += kept + 1
                phases[lane, (kept + 1 - iteration) % block] += 1

        for i in range(joining):
            r = joins[lane, i]
            prompt = facts[r, PROMPT]
            output = facts[r, OUTPUT]
            generated = facts[r, GENERATED]
            whole = prompt + generated
            prompt_tokens -= whole
            queued -= whole
            rest = output - generated - 1
            message = min(stream, output) - generated - 1
            if times[r, FIRST] < 0.0:
                if message <= 0:
                    times[r, FIRST] = now
                elif message < rest:
                    events = push(heaps, lane, events, pack(iteration + message, r, FIRST_MESSAGE))
            kept = reserved_tokens(prompt, output, generated, reserve) if finite else 0
            if rest == 0:
                times[r, LAST] = now
                if finite:
                    held -= in_blocks(kept, block)
                if done.size > 0:
                    done[ended] = r
                ended += 1
                continue
            decoding += 1
            context += whole + 1
            events = push(heaps, lane, events, pack(iteration + rest, r, FINISH))
            if grows:
                if kept == whole:
                    held -= in_blocks(kept, block)
                    growing += 1
                    growing_context += whole + 1
                    phases[lane, (whole + 1 - iteration) % block] += 1
                elif kept < prompt + output - 1:
                    events = push(heaps, lane, events, pack(iteration + kept - whole, r, GROW))
        joining = 0
        if ended > ended_earlier and done.size > 0:
            t_next = now
            break

    clock[lane, NOW] = now
    clock[lane, T_NEXT] = t_next
    clock[lane, T_END] = t_end
    clock[lane, BUSY] = busy
    clock[lane, PREFILL] = prefill
    clock[lane, BATCH] = batch_area
    clock[lane, KV] = kv_area
    state[lane, STEPPING] = stepping
    state[lane, RIDING] = riding
    state[lane, ITERATION] = iteration
    state[lane, DECODING] = decoding
    state[lane, CONTEXT] = context
    state[lane, EVENTS] = events
    state[lane, HEAD] = head
    state[lane, SPLIT] = split
    state[lane, SPLIT_DONE] = split_done
    state[lane, JOINING] = joining
    state[lane, GROWING] = growing
    state[lane, GROWING_CONTEXT] = growing_context
    state[lane, HELD] = held
    state[lane, PROMPT_TOKENS] = prompt_tokens
    state[lane, QUEUED_TOKENS] = queued
    state[lane, OUTSTANDING] -= ended
    state[lane, STEPS] = steps
    state[lane, SEEN] = seen
    state[lane, PEAK] = peak
    return ended
