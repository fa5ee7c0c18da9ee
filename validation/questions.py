"""Random questions over the whole catalogue: what a stranger might ask, each with its regimes.

    from questions import ask
    question = ask(seed=7, number=12)       # the same question for ever

A question is a problem, a strategy that can be built for it, and a load. Models are half dense,
half mixtures of experts; GPUs, engines, layouts, length laws, arrivals, routing and objectives are
drawn independently of them. `properties.py` asks what must hold of every answer, `agreement.py`
how far each is from the simulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

import bestserve as bs
from bestserve.catalog import list_hardware, list_models, load_model
from bestserve.errors import BestserveError
from bestserve.lowering import lower
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, System

TRIES = 400
"""Draws of model, GPU and shape until one can be built: most models do not fit small GPUs, nor long
prompts small budgets."""

REGIMES = (
    "dense",
    "moe",
    "dp lanes",
    "disaggregated",
    "short answers",
    "short prompts",
    "long prompts",
    "spread prompts",
    "classes",
    "P99",
    "joint",
    "e2el",
    "kv-limited",
    "few slots",
    "routed",
    "bursty",
)
"""Labels; a question carries all that apply."""

SHORT_ANSWER = 24.0
"""Mean output tokens up to which an answer is short."""

LONG_PROMPT = 2.0
"""Mean prompt in token budgets from which prompts are long."""

FEW = 64
"""Requests, or slots, of a lane up to which its cache, or its slots, are few."""


@dataclass(frozen=True)
class Question:
    """A problem with objectives, one strategy for it, a load, and the regimes it belongs to.

    load : share of the stability limit at which latencies are asked for
    """

    seed: int
    number: int
    problem: bs.Problem
    strategy: str
    load: float
    regimes: tuple[str, ...]

    def __str__(self) -> str:
        p, w = self.problem, self.problem.workload
        lengths = (
            " + ".join(f"{c.share:.2f}·({c.input_len!r} → {c.output_len!r})" for c in w.classes)
            or f"{w.input_len!r} → {w.output_len!r}"
        )
        options = {
            "burstiness": w.burstiness if w.burstiness != 1 else None,
            "hit": w.prefix_cache_hit or None,
            "routing": p.routing if p.routing != "random" else None,
            "seqs": p.max_num_seqs,
            "tokens": p.max_num_batched_tokens,
        }
        said = "".join(f" {k}={v}" for k, v in options.items() if v is not None)
        return (
            f"{self.seed}/{self.number} {p.model} {p.hardware} {p.engine} {self.strategy} "
            f"{lengths}{said} | {p.slo} | load {self.load:.2f}"
        )


def ask(seed: int, number: int) -> Question:
    """Return question `number` of a seed; no question depends on another."""
    rng = np.random.default_rng([seed, number])
    workload = _workload(rng)
    problem, strategy, system = _deployment(rng, workload)
    slo = _slo(rng, system)
    problem = problem.replaced(slo=slo)
    return Question(
        seed=seed,
        number=number,
        problem=problem,
        strategy=strategy,
        load=float(rng.uniform(0.2, 0.95)),
        regimes=_regimes(problem, strategy, system),
    )


# -- workload ------------------------------------------------------------------------------------

PROMPTS = {
    "chat": (200.0, 4000.0),
    "short": (1.0, 120.0),
    "long": (8_000.0, 100_000.0),
    "any": (1.0, 30_000.0),
}
ANSWERS = {"chat": (40.0, 600.0), "short": (1.0, 24.0), "any": (1.0, 2000.0)}


def _workload(rng: np.random.Generator) -> bs.Workload:
    options = {
        "burstiness": float(rng.choice([1, 0.25, 0.5, 2, 4], p=[0.76, 0.07, 0.07, 0.05, 0.05])),
        "prefix_cache_hit": float(rng.choice([0, 0, 0, 0.3, 0.7])),
    }
    prompts = str(rng.choice(list(PROMPTS), p=[0.45, 0.2, 0.1, 0.25]))
    answers = str(rng.choice(list(ANSWERS), p=[0.5, 0.3, 0.2]))
    if rng.random() < 0.1:
        share = round(float(rng.uniform(0.1, 0.9)), 2)
        shares = {"first": share, "second": round(1 - share, 2)}
        classes = tuple(
            bs.RequestClass(
                name=name,
                share=part,
                input_len=_law(rng, *PROMPTS["chat"]),
                output_len=_law(rng, *ANSWERS[answers]),
            )
            for name, part in shares.items()
        )
        return bs.Workload(classes=classes, **options)
    return bs.Workload(
        input_len=_law(rng, *PROMPTS[prompts]), output_len=_law(rng, *ANSWERS[answers]), **options
    )


def _law(rng: np.random.Generator, low: float, high: float) -> str | int:
    """Return a length law with a mean between the bounds, in the words of the command line."""
    mean = math.exp(rng.uniform(math.log(low), math.log(high)))
    kind = str(rng.choice(["fixed", "lognormal", "geometric", "uniform"], p=[0.25, 0.4, 0.2, 0.15]))
    whole = max(round(mean), 1)
    if kind == "lognormal":
        return f"lognormal:{mean:.1f},{rng.choice([0.3, 0.5, 0.8, 1.0, 1.5, 2.0])}"
    if kind == "geometric" and mean > 1.05:
        return f"geometric:{mean:.1f}"
    if kind == "uniform" and whole > 1:
        return f"uniform:{max(whole // 2, 1)},{2 * whole - whole // 2}"
    return whole


# -- deployment ----------------------------------------------------------------------------------


ENGINES = {
    "vllm": 0.3,
    "sglang": 0.25,
    "tensorrt-llm": 0.25,
    "vllm-0.11": 0.08,
    "vllm-v0": 0.06,
    "vllm-eager": 0.06,
}
"""Presets with the share of the questions that ask for them."""


def _limits(rng: np.random.Generator) -> dict[str, object]:
    """Return the batch limits and the routing: mostly the engine's own and random."""
    limits: dict[str, object] = {
        "routing": str(
            rng.choice(
                ["random", "round_robin", "least_outstanding", "power_of_two"],
                p=[0.76, 0.1, 0.1, 0.04],
            )
        )
    }
    if rng.random() < 0.4:
        limits["max_num_batched_tokens"] = int(rng.choice([512, 1024, 2048, 8192, 16384]))
    if rng.random() < 0.2:
        limits["max_num_seqs"] = int(rng.choice([4, 16, 32, 64, 128, 1024]))
    if rng.random() < 0.15:
        limits["kv_cache_dtype"] = "fp8"
    return limits


@lru_cache(maxsize=1)
def _models() -> dict[bool, list[str]]:
    """Return the bundled models, by whether they are mixtures of experts."""
    found: dict[bool, list[str]] = {False: [], True: []}
    for name in list_models():
        found[load_model(name).architecture.is_moe].append(name)
    return found


def _deployment(rng: np.random.Generator, workload: bs.Workload) -> tuple[bs.Problem, str, System]:
    """Return a problem, a strategy that can be built for it, and its queueing system."""
    moe = bool(rng.random() < 0.5)
    for _ in range(TRIES):
        model = str(rng.choice(_models()[moe]))
        shape, gpus = _shape(rng, moe)
        strategy, count = _replicated(rng, shape, gpus)
        try:
            problem = bs.Problem(
                model=model,
                hardware=str(rng.choice(list_hardware())),
                engine=str(rng.choice(list(ENGINES), p=list(ENGINES.values()))),
                gpus=count,
                workload=workload,
                **_limits(rng),  # type: ignore[arg-type]
            )
            return problem, strategy, lower(problem).system(strategy)
        except BestserveError:
            continue
    raise RuntimeError(f"no deployment of {TRIES} can be built for {workload!r}")


def _shape(rng: np.random.Generator, moe: bool) -> tuple[str, int]:
    """Return the options of one instance and its GPUs."""
    size = int(rng.choice([1, 2, 4, 8], p=[0.3, 0.25, 0.2, 0.25]))
    kind = rng.random()
    if moe and size > 1 and kind < 0.35:
        return f"-tp1-dp{size}-ep{size}", size
    if moe and size > 1 and kind < 0.6:
        return f"-tp{size}-ep{size}", size
    if size > 1 and kind > 0.9:
        return f"-tp{size // 2}-pp2", size
    return f"-tp{size}", size


def _replicated(rng: np.random.Generator, shape: str, size: int) -> tuple[str, int]:
    """Return a strategy of instances of this shape and the GPUs it takes."""
    if rng.random() < 0.25:
        prefill, decode = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        return f"{prefill}p{decode}d{shape}", (prefill + decode) * size
    replicas = int(rng.choice([1, 2, 4, 8], p=[0.5, 0.2, 0.2, 0.1]))
    return f"{replicas}m{shape}", replicas * size


# -- objectives ----------------------------------------------------------------------------------


def lanes_of(system: System) -> tuple[Lane, Lane]:
    """Return the lane that takes prompts and the one that decodes."""
    if isinstance(system, Collocated):
        return system.lane, system.lane
    return system.prefill, system.decode


def alone(step: StepTime, prompt: float, budget: int) -> float:
    """Return the time of one prompt by itself, cut at the token budget [s]."""
    full, rest = divmod(max(prompt, 1.0), budget)
    time = full * step(T=budget, A=0.0, K=0.0, n=1.0, prefill=True) if full else 0.0
    if rest:
        time += step(T=rest, A=0.0, K=0.0, n=1.0, prefill=True)
    return float(time + step.phi * step.a * prompt**2 / 2)


def _slo(rng: np.random.Generator, system: System) -> bs.SLO:
    """Return objectives as multiples of what a lone request takes: strict to hardly binding."""
    first, later = lanes_of(system)
    law = system.lengths
    prompt = float(law.inputs @ law.input_weights)
    answer = float(law.outputs @ law.output_weights)
    ttft = alone(first.step, prompt, first.max_num_batched_tokens) + first.t_req
    tpot = later.step(T=1.0, A=0.0, K=prompt + answer / 2, n=1.0)
    wanted: dict[str, float] = {
        "ttft": ttft * math.exp(rng.uniform(math.log(1.5), math.log(30.0))),
        "tpot": tpot * math.exp(rng.uniform(math.log(1.15), math.log(8.0))),
    }
    kind = str(rng.choice(["marginal", "joint", "e2el"], p=[0.6, 0.25, 0.15]))
    if kind == "e2el":
        lone = ttft + tpot * answer
        wanted = {"e2el": lone * math.exp(rng.uniform(math.log(1.5), math.log(10.0)))}
    elif rng.random() < 0.2:
        del wanted[str(rng.choice(["ttft", "tpot"]))]
    share = float(rng.choice([50, 90, 90, 90, 95, 99, 99]))
    return bs.SLO(
        **{k: float(f"{v:.3g}") for k, v in wanted.items()},
        percentile=share,
        joint=kind == "joint",
        attainment=share / 100,
    )


# -- regimes -------------------------------------------------------------------------------------


def _regimes(problem: bs.Problem, strategy: str, system: System) -> tuple[str, ...]:
    w, slo = problem.workload, problem.slo
    assert slo is not None
    first, later = lanes_of(system)
    law = system.lengths
    prompt = float(law.inputs @ law.input_weights)
    answer = float(law.outputs @ law.output_weights)
    spread = float((law.inputs - prompt) ** 2 @ law.input_weights) / prompt**2
    held = later.kv_capacity_tokens / (prompt + answer / 2)
    single = isinstance(system, Collocated) and system.replicas == 1
    assert isinstance(problem.model, str)
    moe = load_model(problem.model).architecture.is_moe
    labels = {
        "dense": not moe,
        "moe": moe,
        "dp lanes": "-dp" in strategy,
        "disaggregated": not isinstance(system, Collocated),
        "short answers": answer <= SHORT_ANSWER,
        "short prompts": prompt <= PROMPTS["short"][1],
        "long prompts": prompt >= LONG_PROMPT * first.max_num_batched_tokens,
        "spread prompts": spread >= 1.0,
        "classes": bool(w.classes),
        "P99": (slo.attainment if slo.joint else slo.percentile / 100) > 0.95,
        "joint": slo.joint,
        "e2el": slo.e2el is not None,
        "kv-limited": held < min(later.max_num_seqs, FEW),
        "few slots": later.max_num_seqs <= FEW,
        "routed": problem.routing != "random" and not single,
        "bursty": w.burstiness != 1.0,
    }
    return tuple(name for name in REGIMES if labels[name])
