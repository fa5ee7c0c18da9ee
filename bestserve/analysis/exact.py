"""Goodput elasticities chained through the exact derivatives of the step time.

`bestserve.models.step.derivatives` gives ∂ln t/∂ln x of any step exactly (derived with SymPy). The
coefficients of the step time are fitted to operators by Gauss-Newton, so their derivatives follow
from the same normal equations: J·∂ln(coefficients)/∂ln x = ∂ln t/∂ln x over the fitting grid, in
least squares. From the coefficients to goodput the implicit function theorem does the rest.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bestserve.analysis.operating import Operating, objective_room
from bestserve.arrays import Floats
from bestserve.lowering import Lowered
from bestserve.models.binding import Binding
from bestserve.models.latency import evaluator, stability_rate
from bestserve.models.step.coefficients import polishing_grid
from bestserve.models.step.derivatives import step_elasticities
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, System
from bestserve.specs.strategy import Pool

FITTED = ("w", "c", "e", "a", "k")
DIFFERENCE = 0.01


def chained_elasticities(operating: Operating, steepness: float) -> dict[str, float]:
    """Return goodput elasticities by hardware figure, for those the exact derivatives know.

    These are peak (if all weights are bf16), memory bandwidth and link of dense models that run
    from CUDA graphs. The link's part in KV transfers is not in the step time, so disaggregated
    strategies have none for it.
    """
    lowered = operating.lowered
    if lowered.problem.step_time is not None:
        return {}
    if lowered.model.architecture.is_moe or not lowered.engine.cuda_graphs:
        return {}
    found = {}
    for figure in _known(operating):
        up, down = (_moved(operating, figure, sign * DIFFERENCE) for sign in (1, -1))
        found[f"hardware.{figure}"] = (
            (_room(operating, up) - _room(operating, down)) / (2 * DIFFERENCE) / steepness
        )
    return found


def _known(operating: Operating) -> list[str]:
    formats = operating.lowered.formats
    known = ["memory_bandwidth"]
    if {formats.parts.attention.precision, formats.parts.ffn.precision} == {"bf16"}:
        known.append("flops_bf16")
    pools = operating.strategy.pools
    sharded = any(p.tp > 1 for p in pools)
    inside = all(p.tp <= operating.lowered.device.gpus_per_node for p in pools)
    if sharded and inside and all(p.pp == 1 for p in pools) and len(pools) == 1:
        known.append("link_bandwidth")
    return known


def _room(operating: Operating, system: System) -> float:
    if operating.found.binding is Binding.STABILITY:
        return math.log(stability_rate(system))
    found = evaluator(system)(operating.rate)
    return objective_room(found, operating.target, operating.found.binding)


def _moved(operating: Operating, figure: str, amount: float) -> System:
    """Return the system with the step times of all its lanes moved by `amount` in ln(figure)."""

    def moved(lane: Lane, pool: Pool) -> Lane:
        slopes = coefficient_elasticities(operating.lowered, pool, lane.step, figure)
        values = {
            name: getattr(lane.step, name) * math.exp(amount * slope)
            for name, slope in zip(FITTED, slopes, strict=True)
        }
        return replace(lane, step=replace(lane.step, **values))

    pools = operating.strategy.pools
    system = operating.system
    if isinstance(system, Collocated):
        return replace(system, lane=moved(system.lane, pools[0]))
    return replace(
        system,
        prefill=moved(system.prefill, pools[0]),
        decode=moved(system.decode, pools[1]),
    )


def coefficient_elasticities(lowered: Lowered, pool: Pool, step: StepTime, figure: str) -> Floats:
    """Return ∂ln(w, c, e, a, k)/∂ln(figure) [5] of a pool's step time, of a dense model.

    figure : "flops_bf16" (all peaks together), "memory_bandwidth" or "link_bandwidth"
    """
    hit = lowered.problem.workload.prefix_cache_hit
    input_len, output_len = lowered.mean_lengths
    work = polishing_grid(input_len * (1 - hit), output_len)
    exact = step_elasticities(
        lowered.model.architecture,
        lowered.device,
        pool.parallelism,
        lowered.formats,
        lowered.engine.for_role(pool.work),
        work,
        lowered.constants,
    )
    wanted = {
        "flops_bf16": exact.peak,
        "memory_bandwidth": exact.memory_bandwidth,
        "link_bandwidth": exact.link_bandwidth,
    }[figure]
    total = step(
        T=work.tokens,
        A=work.pairs,
        K=work.context_tokens,
        n=work.sequences,
        prefill=work.prompt_tokens > 0,
    )
    norm = np.cbrt(step.w**3 + (step.c * work.tokens) ** 3)
    weights = norm * (step.w / norm) ** 3
    phi = np.where(work.prompt_tokens > 0, step.phi, 1.0)
    parts = (
        weights,
        norm - weights,
        step.e * work.tokens,
        step.a * work.pairs,
        step.k * work.context_tokens,
    )
    jacobian = np.stack([phi * part / total for part in parts], axis=1)
    # Coefficients that are 0 have no logarithm: their column is 0 and the least norm leaves them.
    slopes, *_ = np.linalg.lstsq(jacobian, wanted, rcond=1e-6)
    return np.asarray(slopes)
