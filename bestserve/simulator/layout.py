"""Where things are in the arrays that the compiled loops share.

Requests are rows, so that all a loop needs of one request sits in one cache line: `times`
float64[n, 4] and `facts` int32[n, 8], or 13 columns where tokens are speculated. Lanes are rows
too: `clock` float64[lanes, CLOCK_WIDTH] and `state` int64[lanes, STATE_WIDTH]. Times are seconds,
lengths and KV are tokens unless said otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from bestserve.arrays import Floats, Ints

# times[request]
ARRIVAL, START, FIRST, LAST = range(4)
"""Arrival; start of the first step that works on it; first message; last token. −1: not yet."""

TIMES_WIDTH = 4

# facts[request]
PROMPT, OUTPUT, CACHED, NEXT, GENERATED, READY, ADMITTED, EVICTIONS = range(8)
"""NEXT: following request of the lane's queue. GENERATED: tokens out before the current admission
(more than 0 only after an eviction, or where a decode came from another lane: then without the
first). READY: 1 if the KV came from elsewhere. ADMITTED:
admission number, for "youngest"."""

FACTS_WIDTH = 8

DRAW = FACTS_WIDTH
CLASS = FACTS_WIDTH + 1
MADE = FACTS_WIDTH + 2
GAIN = FACTS_WIDTH + 3
TAKEN = FACTS_WIDTH + 4
"""Only of requests in pools that speculate. DRAW: what its draws start from. CLASS: row of
`Pool.accept`. MADE: tokens out so far. GAIN: tokens out of the step that ended last. TAKEN: decode
steps so far."""
SPECULATING_WIDTH = 13

# clock[lane]
NOW, T_NEXT, T_END, BUSY, PREFILL, BATCH, KV, SAMPLE_TIME, FORMED, ASKED = range(10)
"""NOW: the lane's last step boundary. T_NEXT: when it needs attention again. T_END: end of the
step under way. BUSY, PREFILL: time in steps, in steps with prompts. BATCH, KV: integrals over time
of the sequences in the step and of the tokens in the cache. FORMED: when the next step is formed;
NOW, or with asynchronous scheduling the boundary before it. ASKED: when `reported_kv` last sent a
request here."""
CLOCK_WIDTH = 10

# state[lane]
(
    STEPPING,
    RIDING,
    ITERATION,
    DECODING,
    EVENTS,
    HEAD,
    TAIL,
    SPLIT,
    SPLIT_DONE,
    JOINING,
    CONTEXT,
    GROWING,
    GROWING_CONTEXT,
    HELD,
    PROMPT_TOKENS,
    OUTSTANDING,
    QUEUED_TOKENS,
    ADMISSIONS,
    STEPS,
    SAMPLES,
    STRIDE,
    SEEN,
    PEAK,
    EVICTED,
    LEAVING,
    LEAVING_BLOCKS,
    LEFT,
    MOVED_TOKENS,
    REPORTED,
) = range(29)
"""STEPPING: a committed step is under way; RIDING: decodes take part in it. ITERATION: decode
steps so far. DECODING, CONTEXT: running decodes and the sum of their contexts in the next step.
EVENTS: heap size. HEAD, TAIL: waiting queue. SPLIT, SPLIT_DONE: the prompt that is partly
processed and how far. JOINING: prompts whose last token is in the step. GROWING, GROWING_CONTEXT:
the decodes whose KV grows by the step. HELD: KV blocks of all others. PROMPT_TOKENS: KV tokens of
prompts under way. PEAK: most KV tokens seen. LEAVING, LEAVING_BLOCKS: requests whose end the step
formed next does not know of yet, and their KV blocks (asynchronous scheduling); they stand in
`joins` behind the first SLOTS entries. LEFT: how many of them have left their blocks to the prefix
cache. MOVED_TOKENS: those of QUEUED_TOKENS whose KV came from elsewhere. REPORTED: KV
tokens of running requests when a step ended last, which is what an engine's metrics tell."""
STATE_WIDTH = 29

# limits[i], int64
(
    SPLITS,
    RIDES,
    MOST_PROMPTS,
    ROOM,
    SLOTS,
    BUDGET,
    BLOCK,
    BLOCKS,
    STREAM,
    AHEAD,
    DRAFTS,
    STEPWISE,
) = range(12)
"""BLOCKS: KV capacity in blocks, UNLIMITED if it never binds. AHEAD: 1 if steps are formed while
the one before is under way. DRAFTS: tokens per decode that are speculated at most, for which KV is
kept too; 0: none. STEPWISE: 1 if no steps are jumped over, because something is decided at each."""
UNLIMITED = 1 << 60

# costs[i], float64: `StepTime.coefficients()`, then
RESERVE = 8
"""Share of the output reserved at admission [1]."""
DRAFT_TOKEN = 9
"""What a drafter takes of a prompt token [s]."""

# beside[decodes]
DRAFT_TIME, DRAFT_CONTEXT, SAVED = range(3)
"""What drafting adds to a step with so many decodes [s], also per token of their contexts [s], and
how much sooner experts are done without prompts because verified tokens share them [s]."""

SERIES_LENGTH = 1024
"""Samples kept per lane of batch size and KV; every second one is dropped when full."""
SERIES_TIME, SERIES_BATCH, SERIES_KV = range(3)

JOURNAL_START, JOURNAL_STEPS, JOURNAL_FIRST, JOURNAL_GROWTH = range(4)
"""Optional record of a lane: decode steps from a time on, the first's duration and the growth."""


class Pool(NamedTuple):
    """The arrays of the lanes of one pool; see `layout` for what is where.

    seen, gaps : what readers meet, see `reading`; seen has no rows where nobody asks
    ranks : of each request, whom lanes take first, the least one; empty: in order of arrival
    widths, beside : tokens that so many decodes take of a step [slots + 1], and what drafting does
    to its time [slots + 1, 3]; accept : chances that at least 1, 2, … drafts are accepted, by class
    of requests
    """

    clock: Floats
    state: Ints
    heaps: Ints
    phases: Ints
    joins: Ints
    series: Floats
    journals: Floats
    limits: Ints
    costs: Floats
    moe: Floats
    table: Floats
    seen: Floats
    gaps: Floats
    ranks: Ints
    widths: Ints
    beside: Floats
    accept: Floats
