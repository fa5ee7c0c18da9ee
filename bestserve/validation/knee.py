"""Runs whose offered rate is itself a measurement: the most that met the objectives.

An MLPerf Server result is the highest rate at which LoadGen's limits held, so the system ran just
below its knee, where a few per cent of capacity change latencies severalfold. The rate therefore
tells the capacity better than any model. Two facts of such runs set the step time:

- the part that grows with the tokens takes at most `LOAD` of the time: nearer to 1 the batch, and
  P99 TPOT with it, would wander half above its mean, where runs show an eighth;
- every step takes so much more that the first objective binds at its margin.

Both corrections are reported with the row; a factor of 1 and no time mean that the model was right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bestserve.models.system import Collocated, System
from bestserve.readers.tidy import TidyRow

LOAD = 0.75
"""Share of the time [1] that tokens take in runs at their knee: P99 TPOT lies 12 to 15 % above its
mean, and with n running requests the batch wanders by 1/√(n·(1 − load))."""

TTFT_MARGIN, TPOT_MARGIN = 0.35, 0.9
"""Shares of the limits at which submissions stop: of what the TTFT limit leaves for waiting above a
lone request's time, and of the TPOT limit. Waiting grows from half a second to seconds within a per
cent of rate, and nobody tunes a ten-minute run to that edge."""

SHORTEST, LONGEST = 1e-4, 1.0
"""Range of the added time per step [s]."""

STEPS = 9

LARGE = 8192.0
"""Tokens of a step whose weights are read in no time beside its computation."""

Figures = dict[str, float]
Run = Callable[[System], Figures]

_FLAG = re.compile(
    r"SLA p(?P<percentile>50|90|99) (?P<metric>TTFT|TPOT) ?<=? ?(?P<limit>[\d.]+) ?ms "
    r"met=(?P<met>true|false)",
    re.IGNORECASE,
)
_OBJECTIVE = re.compile(r"SLO TTFT p99<=(\d+)ms TPOT p99<=(\d+)ms")


def objectives_of(row: TidyRow) -> tuple[float, float] | None:
    """Return the P99 limits of TTFT and TPOT that a row's notes state [ms], or None."""
    for note in row.notes:
        match = _OBJECTIVE.search(note)
        if match:
            return float(match[1]), float(match[2])
    return None


def objective_met(row: TidyRow, predicted: Mapping[str, float]) -> tuple[bool, bool] | None:
    """Return whether a run meets the objective that its notes state, (predicted, measured), or
    None where they state none or the prediction lacks its figure.

    A note "SLA p99 TTFT<500ms met=False" states the objective and what was measured.
    """
    for note in row.notes:
        match = _FLAG.search(note)
        if match:
            figure = f"{match['metric'].lower()}_p{match['percentile']}_ms"
            if figure in predicted:
                return predicted[figure] < float(match["limit"]), match["met"].lower() == "true"
    return None


def load_of(system: Collocated, rate: float) -> float:
    """Return the share of a replica's time that tokens take at a rate [req/s], fixed times left out
    [1]; 1 and more is beyond the capacity whatever the batch."""
    step, lengths = system.lane.step, system.lengths
    token = (step(T=2 * LARGE, A=0, K=0) - step(T=LARGE, A=0, K=0)) / LARGE
    prompts, answers = lengths.inputs, lengths.outputs
    mean_prompt = float(prompts @ lengths.input_weights)
    mean_answer = float(answers @ lengths.output_weights)
    pairs = float(prompts**2 @ lengths.input_weights) / 2
    both = prompts * answers @ lengths.input_weights if lengths.joint else mean_prompt * mean_answer
    context = float(both + answers**2 @ lengths.output_weights / 2)
    seconds = (mean_prompt + mean_answer) * token + step.a * pairs + step.k * context
    return rate * (seconds + (1.0 + mean_answer) * step.a_seq)


def corrected(system: Collocated, factor: float, more: float) -> Collocated:
    """Return the system with every step `factor` times as long and `more` [s] added to it."""
    step = system.lane.step
    times = {n: getattr(step, n) * factor for n in ("w", "c", "e", "a", "k", "a_seq")}
    changed = replace(
        step, **times, a_step=step.a_step * factor + more, moe=tuple(m * factor for m in step.moe)
    )
    return replace(system, lane=replace(system.lane, step=changed))


def at_objectives(
    system: Collocated, rate: float, objectives: tuple[float, float], run: Run, alone: Run
) -> tuple[Figures, float, float]:
    """Return the figures where the first objective binds, the factor on steps and the time added.

    rate : of one replica [req/s]; objectives : P99 limits of TTFT and TPOT [ms]
    run, alone : predict the figures of a system under the row's load, and of lone requests
    """
    factor = min(1.0, LOAD / load_of(system, rate))
    limit_ttft, limit_tpot = objectives
    lone = min(alone(corrected(system, factor, 0.0)).get("ttft_p99_ms", 0.0), 0.9 * limit_ttft)

    def exceeded(figures: Figures) -> bool:
        waiting = figures.get("ttft_p99_ms", 0.0) - lone
        late = waiting > TTFT_MARGIN * (limit_ttft - lone)
        return late or figures.get("tpot_p99_ms", 0.0) > TPOT_MARGIN * limit_tpot

    low, high = math.log(SHORTEST), math.log(LONGEST)
    figures = run(corrected(system, factor, 0.0))
    if exceeded(figures):
        return figures, factor, 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        now = run(corrected(system, factor, math.exp(middle)))
        if exceeded(now):
            high = middle
        else:
            low, figures = middle, now
    return figures, factor, math.exp(low)


def highest_rate(start: float, met: Callable[[float], bool]) -> float | None:
    """Return the highest rate that meets the objectives, within 3 %; None below a tenth of `start`.

    met : whether a rate does [req/s]
    """
    low, high = start, start
    while met(high) and high < 16 * start:
        low, high = high, 1.5 * high
    while not met(low):
        low, high = low / 1.5, low
        if low < 0.1 * start:
            return None
    while high / low > 1.03:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if met(middle) else (low, middle)
    return low
