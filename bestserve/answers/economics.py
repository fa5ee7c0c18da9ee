"""Money and energy of a strategy at a rate: prices and board power over tokens."""

from __future__ import annotations

from dataclasses import replace

from bestserve.catalog.prices import price_of
from bestserve.lowering import Lowered
from bestserve.models.system import Collocated, Lane
from bestserve.results.economics import Economics
from bestserve.results.ranking import RankedStrategy
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

IDLE = 0.15
"""Share of its board power that a GPU draws between steps while it holds a model [1].

An H200 without a process draws 74 W of 700 W (public validation of ConserveMode, 31 regions); a
process that holds memory adds 26 to 50 W on H100 and A100, whatever it holds (Vadari 2026,
arXiv:2605.23918): 14 to 18 % together. On an L40S it adds 66 W of 350 W. The whole figure is an
estimate: memory-bound steps draw less than the limit.
"""


def economics(lowered: Lowered, row: RankedStrategy) -> Economics:
    """Return tokens, money and energy of a ranked strategy at its goodput.

    The price is the problem's, the hardware record's, or the median of the public on-demand offers
    for this GPU (`bestserve.catalog.prices`).
    """
    input_len, output_len = lowered.mean_lengths
    tokens = row.goodput * (input_len + output_len)
    found = Economics(
        tokens_per_second=tokens,
        output_per_gpu=row.goodput * output_len / row.gpus,
        output_per_user=1.0 / row.tpot if row.tpot > 0 else 0.0,
        joules_per_token=_energy(lowered, row, tokens),
    )
    usd, said = gpu_price(lowered.problem)
    if usd is None or tokens <= 0:
        return found
    hourly = usd * row.gpus
    million = hourly / 3600 / tokens * 1e6
    share = prompt_share(lowered, Strategy.parse(row.strategy), row.goodput)
    return replace(
        found,
        usd_per_gpu_hour=usd,
        price=said,
        usd_per_hour=hourly,
        usd_per_million_tokens=million,
        usd_per_million_input=share * million * (input_len + output_len) / input_len,
        usd_per_million_output=(1 - share) * million * (input_len + output_len) / output_len,
    )


def priced(lowered: Lowered, row: RankedStrategy) -> RankedStrategy:
    """Return the row with its economics."""
    return replace(row, economics=economics(lowered, row))


def prompt_share(lowered: Lowered, strategy: Strategy, rate: float) -> float:
    """Return the share of the GPUs' busy time that goes into prompts [1].

    Of separate pools it is the prefill pool's share of the GPUs. Of one pool: the time of steps
    full of prompt tokens, over all busy time.
    """
    system = lowered.system(strategy)
    if not isinstance(system, Collocated):
        return strategy.pools[0].gpus / strategy.gpus
    input_len, output_len = lowered.mean_lengths
    prompts = _prompt_time(system.lane, input_len * (1 - lowered.problem.workload.prefix_cache_hit))
    # A decode step carries the answers that run at once: as many as arrive while one runs.
    step = system.lane.step
    busy = min(rate / system.replicas * prompts, 1.0)
    running = 1.0
    for _ in range(50):
        time = (
            step(T=running, A=0.0, K=running * (input_len + output_len / 2)) + step.a_seq * running
        )
        wanted = rate / system.replicas * output_len * time / max(1.0 - busy, 0.05)
        running = min(max(0.5 * (running + wanted), 1.0), float(system.lane.max_num_seqs))
    decodes = output_len * time / running
    return prompts / (prompts + decodes)


def _prompt_time(lane: Lane, length: float) -> float:
    """Return the time that steps full of prompt tokens take per prompt of `length` [s]."""
    budget = float(max(lane.max_num_batched_tokens, 1))
    pairs = length / 2 * budget
    return float(lane.step.phi * lane.step(T=budget, A=pairs, K=0.0)) * length / budget


def gpu_price(problem: Problem) -> tuple[float | None, str]:
    """Return the price of a GPU-hour [USD] and where it comes from; None where none is known."""
    if problem.price_per_hour is not None:
        return problem.price_per_hour, f"{problem.price_per_hour:.4g} $ per GPU-hour, stated"
    if problem.step_time is not None:
        return None, ""
    hardware = Lowered(problem).hardware
    figure = hardware.price_per_hour
    if figure is not None:
        return figure.value, f"{figure.value:.4g} $ per GPU-hour, {figure.source}, {figure.date}"
    offer = price_of(hardware.name)
    return (None, "") if offer is None else (offer.usd_per_hour, str(offer))


def _energy(lowered: Lowered, row: RankedStrategy, tokens: float) -> float | None:
    """Return joules per token; None without a stated board power."""
    if lowered.problem.step_time is not None or lowered.hardware.power is None or tokens <= 0:
        return None
    drawn = IDLE + (1 - IDLE) * row.utilisation
    return lowered.hardware.power.value * drawn * row.gpus / tokens
