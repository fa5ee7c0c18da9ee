"""Which resource a step waits for, and where that changes: in batch, context and bandwidth.

Numbers come from the operators themselves; `conditions` states the same crossovers as formulas of
the step-time coefficients and, through them, of the hardware (SymPy, loaded when asked for).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.lowering import Lowered
from bestserve.models.special import root
from bestserve.models.step.breakdown import Breakdown, step_breakdown
from bestserve.models.step.derivatives import step_elasticities
from bestserve.models.step.device import Device
from bestserve.models.step.step_time import StepTime
from bestserve.models.step.step_work import StepWork
from bestserve.specs.strategy import Pool, Strategy

RESOURCES = ("compute", "memory", "dispatch", "communication")
BATCHES = np.unique(np.round(np.geomspace(1, 4096, 97)))
CONTEXTS = np.geomspace(64, 1 << 20, 113)
FACTORS = (1 / 16, 16.0)
"""Range in which a crossover in bandwidth is looked for [1]."""


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where the binding resource changes: quantity, value in `unit`, from which to which."""

    quantity: str
    value: float
    unit: str
    before: str
    after: str

    def sentence(self) -> str:
        """Say it."""
        return (
            f"{self.quantity} {_figure(self.value, self.unit)}: below it a decode step waits "
            f"mostly for {self.before}, above for {self.after}"
        )


@dataclass(frozen=True, slots=True)
class StepRegime:
    """One kind of step: time [s], shares of it by resource [1], exact elasticities [1].

    elasticities : ∂ln t/∂ln x for peak, memory_bandwidth, link_bandwidth, launch, host
    """

    kind: str
    work: str
    seconds: float
    shares: dict[str, float]
    elasticities: dict[str, float]

    @property
    def binding(self) -> str:
        """The resource with the largest share."""
        return max(self.shares, key=lambda r: self.shares[r])

    def sentence(self) -> str:
        """Say what the step waits for."""
        ordered = sorted(self.shares, key=lambda r: -self.shares[r])
        shares = ", ".join(f"{r} {self.shares[r]:.0%}" for r in ordered if self.shares[r] > 5e-3)
        return f"a {self.kind} step of {self.work} takes {self.seconds * 1e3:.1f} ms: {shares}"


@dataclass(frozen=True, slots=True)
class Regime:
    """Decode and prefill steps at the operating point, and the crossovers around it."""

    decode: StepRegime
    prefill: StepRegime
    crossovers: tuple[Crossover, ...]
    balance: tuple[tuple[str, float, str], ...]
    """(symbolic condition, its value, unit)."""

    def sentences(self) -> list[str]:
        """Return one line per fact."""
        lines = [self.decode.sentence(), self.prefill.sentence()]
        lines += [c.sentence() for c in self.crossovers]
        return lines + [f"{c} = {_figure(v, u)}" for c, v, u in self.balance]


def _figure(value: float, unit: str) -> str:
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if unit.endswith("/s") and value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def regime_of(lowered: Lowered, strategy: Strategy, batch: float) -> Regime:
    """Return the regime of a strategy whose (decode) lanes run `batch` sequences [1].

    Not for problems that bring their own step time: they have no operators.
    """
    first, last = strategy.pools[0], strategy.pools[-1]
    probe = _Probe(lowered, last)
    sequences = max(batch, 1.0)
    input_len = lowered.mean_lengths[0] * (1 - lowered.problem.workload.prefix_cache_hit)
    decode = StepWork.grid(context=probe.context, decodes=sequences)
    prompt = StepWork.grid(chunk=input_len, prompts=1)
    step = lowered.pool_lane(last)[0].step
    return Regime(
        decode=probe.regime(
            decode, "decode", f"{sequences:.0f} sequences at {probe.context:,.0f} tokens"
        ),
        prefill=_Probe(lowered, first).regime(
            prompt, "prefill", f"one {input_len:,.0f}-token prompt"
        ),
        crossovers=(
            *probe.in_batch(),
            *probe.in_context(sequences),
            *probe.in_bandwidth(sequences),
        ),
        balance=balance_points(step),
    )


class _Probe:
    """Steps of an instance of one pool, evaluated where asked."""

    def __init__(self, lowered: Lowered, pool: Pool) -> None:
        self.lowered, self.parallelism = lowered, pool.parallelism
        self.engine = lowered.engine.for_role(pool.work)
        lengths = lowered.lengths
        steps = np.maximum(lengths.outputs - 1.0, 1e-9)
        share = steps * lengths.output_weights
        # A running sequence is seen length-biased, half-way through its answer.
        self.context = lowered.mean_lengths[0] + float(share @ steps) / float(share.sum()) / 2

    def breakdown(self, work: StepWork, device: Device | None = None) -> Breakdown:
        lowered = self.lowered
        return step_breakdown(
            lowered.model.architecture,
            device or lowered.device,
            self.parallelism,
            lowered.formats,
            self.engine,
            work,
            lowered.constants,
        )

    def regime(self, work: StepWork, kind: str, text: str) -> StepRegime:
        lowered = self.lowered
        found = self.breakdown(work)
        total = float(found.total[0])
        exact = step_elasticities(
            lowered.model.architecture,
            lowered.device,
            self.parallelism,
            lowered.formats,
            self.engine,
            work,
            lowered.constants,
        )
        names = ("peak", "memory_bandwidth", "link_bandwidth", "launch", "host")
        return StepRegime(
            kind=kind,
            work=text,
            seconds=total,
            shares={r: float(getattr(found, r)[0]) / total for r in RESOURCES},
            elasticities={n: float(getattr(exact, n)[0]) for n in names},
        )

    def in_batch(self) -> list[Crossover]:
        """Crossovers over the number of running sequences, within the lane's limit."""
        found = self.breakdown(StepWork.grid(context=self.context, decodes=BATCHES))
        return crossovers("batch", "sequences", BATCHES, found)

    def in_context(self, sequences: float) -> list[Crossover]:
        """Crossovers over the context of every sequence."""
        found = self.breakdown(StepWork.grid(context=CONTEXTS, decodes=sequences))
        return crossovers("context", "tokens", CONTEXTS, found)

    def in_bandwidth(self, sequences: float) -> list[Crossover]:
        """The memory bandwidth at which memory and the next resource take the same time."""
        device = self.lowered.device
        work = StepWork.grid(context=self.context, decodes=sequences)

        def shares(factor: float) -> dict[str, float]:
            bandwidth = device.memory_bandwidth * factor
            found = self.breakdown(work, replace(device, memory_bandwidth=bandwidth))
            return {r: float(getattr(found, r)[0]) for r in RESOURCES}

        def lead(factor: float) -> float:
            at = shares(factor)
            return at["memory"] - max(v for r, v in at.items() if r != "memory")

        low, high = FACTORS
        if lead(low) < 0 or lead(high) > 0:
            return []
        factor = root(lead, low, high, 1e-4)
        at = shares(factor)
        other = max((r for r in at if r != "memory"), key=lambda r: at[r])
        value = factor * device.memory_bandwidth
        return [Crossover("memory bandwidth", value, "B/s", "memory", other)]


def crossovers(quantity: str, unit: str, x: Floats, found: Breakdown) -> list[Crossover]:
    """Return where the largest share changes along x, interpolated between neighbours."""
    shares = np.stack([getattr(found, r) for r in RESOURCES])
    binding = np.argmax(shares, axis=0)
    changes = []
    for i in np.flatnonzero(np.diff(binding)):
        a, b = binding[i], binding[i + 1]
        gap = shares[a] - shares[b]
        part = gap[i] / (gap[i] - gap[i + 1])
        value = float(x[i] + part * (x[i + 1] - x[i]))
        changes.append(Crossover(quantity, value, unit, RESOURCES[a], RESOURCES[b]))
    return changes


def balance_points(step: StepTime) -> tuple[tuple[str, float, str], ...]:
    """Return the crossovers of the step-time formula itself: condition, value, unit."""
    units = {"T": "tokens", "K": "tokens", "q": "tokens"}
    texts = {
        "T": "tokens in a step above which compute exceeds reading the weights: T* = w/c",
        "K": "context tokens in a step above which reading KV exceeds the weights: K* = w/k",
        "q": "prompt tokens above which attention exceeds the matrix products: q* = 2c/a",
    }
    values = {
        "T": step.w / step.c if step.c else 0.0,
        "K": step.w / step.k if step.k else 0.0,
        "q": 2 * step.c / step.a if step.a else 0.0,
    }
    return tuple((texts[n], values[n], units[n]) for n in texts if values[n] > 0)


@cache
def conditions() -> dict[str, str]:
    """Return the crossovers as SymPy derives them from the step-time formula.

    Keys T, K, q as in `balance_points`, in terms of the coefficients; T_hardware is T* with
    w = b·N/(e_m·W) and c = 2N/(e_c·P) put in, N weights of b bytes: the machine balance.
    """
    import sympy as sp

    w, c, a, k, T, K, q, N, b = sp.symbols("w c a k T K q N b", positive=True)
    W, P, e_m, e_c = sp.symbols("W P e_m e_c", positive=True)
    # [w³ + (cT)³]^(1/3): its derivative by ln w and by ln c are equal where both parts are.
    norm = (w**3 + (c * T) ** 3) ** sp.Rational(1, 3)
    balance = sp.simplify((w * sp.diff(norm, w) - c * sp.diff(norm, c)) * norm**2)
    (tokens,) = sp.solve(balance, T)
    (context,) = sp.solve(sp.Eq(k * K, w), K)
    (prompt,) = sp.solve(sp.Eq(a * q**2 / 2, c * q), q)
    machine = sp.simplify(tokens.subs({w: b * N / (e_m * W), c: 2 * N / (e_c * P)}))
    found = {"T": tokens, "K": context, "q": prompt, "T_hardware": machine}
    return {name: str(value) for name, value in found.items()}
