"""A minimal serving engine with continuous batching, so that predictions meet a real queue.

Requests queue first come first served and join at step boundaries. Each running request takes one
token of the step's budget; what remains goes to prompts in order, the last one split (chunked
prefill). The step that processes a prompt's last token emits the first output token at its end.
What executes a step is an `Executor`: the measured layers, or a step-time formula on a virtual
clock, which makes the loop a slow referee for the simulator.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bestserve.errors import InputError
from bestserve.measure.attention import Ragged
from bestserve.models.step.step_time import StepTime


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt of `input_len` tokens that gets `output_len` tokens of answer, both ≥ 1."""

    input_len: int
    output_len: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may do at once.

    max_num_seqs : sequences holding a cache slot; max_num_batched_tokens : tokens per step
    """

    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """The work of one step and how long it took.

    tokens T [1], pairs A [1], context K [1], sequences n [1], prefill : any prompt token in it,
    seconds [s]
    """

    tokens: int
    pairs: float
    context: int
    sequences: int
    prefill: bool
    seconds: float


@dataclass(slots=True)
class Served:
    """A request on its way: arrival [s], and when each of its tokens came out [s]."""

    request: Request
    index: int
    arrival: float
    slot: int = -1
    processed: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether all its tokens are out."""
        return len(self.times) >= self.request.output_len

    @property
    def ttft(self) -> float:
        """Arrival to first token [s]."""
        return self.times[0] - self.arrival

    @property
    def itls(self) -> list[float]:
        """Gaps between its tokens [s]."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: requests in order of arrival, steps in order of time."""

    served: list[Served]
    steps: list[Step]
    start: float
    end: float


class Executor(Protocol):
    """Something that executes steps and has a clock."""

    def clock(self) -> float:
        """Return the present time [s]."""

    def wait_until(self, moment: float) -> None:
        """Idle until `moment` [s]."""

    def step(self, ragged: Ragged) -> None:
        """Execute one step; its tokens are out on return."""


class VirtualExecutor:
    """Executes steps by formula on a clock that only steps and waiting advance."""

    def __init__(self, step_time: StepTime) -> None:
        self._step_time = step_time
        self._now = 0.0

    def clock(self) -> float:
        """Return the virtual time [s]."""
        return self._now

    def wait_until(self, moment: float) -> None:
        """Advance the clock to `moment` [s]."""
        self._now = max(self._now, moment)

    def step(self, ragged: Ragged) -> None:
        """Advance the clock by the step's time."""
        tokens, pairs, context, prefill = work(ragged)
        count = len(ragged.slots)
        self._now += self._step_time(tokens, pairs, context, count, prefill)


class LayerExecutor:
    """Executes steps on a stack of layers, in real time, reading one number back per step.

    slot_tokens : longest request, prompt plus answer [tokens]
    """

    def __init__(self, stack: Any, machine: Any, slot_tokens: int) -> None:
        self._stack, self._machine, self._slot_tokens = stack, machine, slot_tokens

    def clock(self) -> float:
        """Return the host's time [s]."""
        return time.perf_counter()

    def wait_until(self, moment: float) -> None:
        """Sleep until `moment` [s]."""
        left = moment - time.perf_counter()
        if left > 0:
            time.sleep(left)

    def step(self, ragged: Ragged) -> None:
        """Run the layers and fetch a value, as an engine fetches its sampled tokens."""
        with self._stack.torch.inference_mode():
            for op in self._stack.ops(ragged, self._slot_tokens):
                op.run()
            self._stack.residual[0, 0].item()
        self._machine.synchronize()


def work(ragged: Ragged) -> tuple[int, float, int, bool]:
    """Return (T, A, K, whether prompt tokens are in it) of a step.

    K counts the contexts of decodes, the token being processed included. For q prompt tokens after
    p processed ones A is q·p + q²/2.
    """
    pairs, context, prefill = 0.0, 0, False
    for queries, end, is_prompt in zip(
        ragged.queries, ragged.contexts, ragged.prompts, strict=True
    ):
        if is_prompt:
            pairs += queries * (end - queries) + queries**2 / 2
            prefill = True
        else:
            context += end
    return ragged.tokens, pairs, context, prefill


def serve(
    executor: Executor,
    requests: Sequence[Request],
    limits: Limits,
    *,
    arrivals: Sequence[float] | None = None,
    concurrency: int = 0,
) -> Run:
    """Serve `requests` and return when the last token is out.

    arrivals : open loop: seconds after the start, ascending, one per request
    concurrency : closed loop: that many clients start at once, each sending the next request when
        its last one ends

    Raises InputError unless exactly one of the two is given.
    """
    if (arrivals is None) == (concurrency < 1):
        raise InputError("serve needs either arrivals or a concurrency of at least 1")
    start = executor.clock()
    if arrivals is not None:
        if len(arrivals) != len(requests):
            raise InputError(f"{len(arrivals)} arrivals for {len(requests)} requests")
        future = deque(
            Served(r, i, start + t) for i, (r, t) in enumerate(zip(requests, arrivals, strict=True))
        )
        unsent: deque[Request] = deque()
    else:
        future = deque(Served(r, i, start) for i, r in enumerate(requests[:concurrency]))
        unsent = deque(requests[concurrency:])
    engine = _Engine(executor, limits)
    while future or engine.busy:
        now = executor.clock()
        while future and future[0].arrival <= now:
            engine.waiting.append(future.popleft())
        if not engine.busy:
            executor.wait_until(future[0].arrival)
            continue
        for served in engine.step():
            if unsent:
                index = len(requests) - len(unsent)
                future.append(Served(unsent.popleft(), index, served.times[-1]))
    finished = sorted(engine.finished, key=lambda s: s.index)
    return Run(finished, engine.steps, start, executor.clock())


class _Engine:
    """Queues, slots and the choice of what goes into a step."""

    def __init__(self, executor: Executor, limits: Limits) -> None:
        self.executor, self.limits = executor, limits
        self.waiting: deque[Served] = deque()
        self.running: list[Served] = []
        self.finished: list[Served] = []
        self.steps: list[Step] = []
        self.free = list(range(limits.max_num_seqs))[::-1]

    @property
    def busy(self) -> bool:
        """Whether any request is here."""
        return bool(self.waiting or self.running)

    def step(self) -> list[Served]:
        """Execute one step and return the requests that it finished."""
        begin = self.executor.clock()
        chosen = self._choose()
        ragged = Ragged(
            slots=tuple(s.slot for s, _ in chosen),
            queries=tuple(q for _, q in chosen),
            contexts=tuple(
                s.processed + q
                if s.processed < s.request.input_len
                # The token made by the last step is processed now: it is part of the context.
                else s.request.input_len + len(s.times)
                for s, q in chosen
            ),
            prompts=tuple(s.processed < s.request.input_len for s, _ in chosen),
        )
        self.executor.step(ragged)
        end = self.executor.clock()
        tokens, pairs, context, prefill = work(ragged)
        self.steps.append(Step(tokens, pairs, context, len(chosen), prefill, end - begin))
        for served, queries in chosen:
            if served.processed < served.request.input_len:
                served.processed += queries
                if served.processed < served.request.input_len:
                    continue
            served.times.append(end)
        done = [s for s, _ in chosen if s.done]
        for served in done:
            self.running.remove(served)
            self.free.append(served.slot)
        self.finished += done
        return done

    def _choose(self) -> list[tuple[Served, int]]:
        """Return each request of the next step with its tokens: decodes first, then prompts."""
        budget = self.limits.max_num_batched_tokens
        decodes = [s for s in self.running if s.processed >= s.request.input_len][:budget]
        chosen = [(s, 1) for s in decodes]
        budget -= len(chosen)
        started = [s for s in self.running if s.processed < s.request.input_len]
        for served in started:
            if budget <= 0:
                return chosen
            queries = min(budget, served.request.input_len - served.processed)
            chosen.append((served, queries))
            budget -= queries
        while budget > 0 and self.waiting and self.free:
            served = self.waiting.popleft()
            served.slot = self.free.pop()
            self.running.append(served)
            queries = min(budget, served.request.input_len)
            chosen.append((served, queries))
            budget -= queries
        return chosen
