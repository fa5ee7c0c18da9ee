"""The simulator against queueing theory: exact formulas, inside confidence bounds.

Step times are chosen so that the engine becomes the textbook queue: with one slot, no decodes and
cost per prompt token only, service is proportional to the prompt length; with decode steps of one
token's cost and many slots, requests share the processor.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Disaggregated, Lane, Lengths
from bestserve.simulator import Requests, replicate, simulate

UNLIMITED = 1 << 30
ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)
MEAN_TOKENS = 1000
SERVICE = 1e-3
"""Seconds per prompt token: one prompt of 1,000 tokens takes 1 s."""


def one_at_a_time(replicas: int = 1, routing: str = "random") -> Collocated:
    """Each replica serves one prompt at a time, `SERVICE` seconds per token."""
    lane = Lane(
        step=StepTime(w=0, c=SERVICE, e=0, a=0, k=0),
        policy="prefill_priority",
        max_num_seqs=1,
        max_num_batched_tokens=UNLIMITED,
    )
    return Collocated(
        lane=lane,
        replicas=replicas,
        lengths=ANY,
        arrivals=Arrivals(),
        routing=routing,  # type: ignore[arg-type]
    )


def requests(prompts: np.ndarray) -> Requests:
    return Requests(
        input_len=np.maximum(np.rint(prompts), 1).astype(int),
        output_len=np.ones(len(prompts), dtype=int),
    )


def waits(system: Collocated, rate: float, law: str, n: int = 100_000) -> tuple[float, float]:
    """Mean queue time over ten seeds and its standard error [s]."""
    means = []
    for seed in range(10):
        rng = np.random.default_rng(1000 + seed)
        prompts = {
            "M": rng.exponential(MEAN_TOKENS, n),
            "D": np.full(n, float(MEAN_TOKENS)),
            "LN": rng.lognormal(math.log(MEAN_TOKENS) - 0.5, 1.0, n),
        }[law]
        result = simulate(system, rate, seed=seed, given=requests(prompts))
        means.append(result.queue_time[result.kept].mean())
    return float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(len(means)))


def pollaczek_khinchine(rate: float, mean: float, scv: float) -> float:
    """E[W] = λE[S²]/(2(1 − ρ)) of M/G/1 (Kleinrock, Queueing Systems I, eq. 5.65) [s]."""
    rho = rate * mean
    return rate * mean**2 * (1 + scv) / (2 * (1 - rho))


@pytest.mark.parametrize("rho", [0.3, 0.8])
@pytest.mark.parametrize(("law", "scv"), [("M", 1.0), ("D", 0.0), ("LN", math.e - 1)])
def test_mean_wait_is_pollaczek_khinchine(law: str, scv: float, rho: float) -> None:
    mean, error = waits(one_at_a_time(), rho, law)
    assert mean == pytest.approx(pollaczek_khinchine(rho, 1.0, scv), abs=4 * error)
    assert error < 0.05 * mean


def test_wait_is_exponential_in_mm1() -> None:
    """P(W > t) = ρe^{−(1−ρ)t/E[S]} (Kleinrock, Queueing Systems I, eq. 5.120)."""
    rng = np.random.default_rng(5)
    result = simulate(one_at_a_time(), 0.7, seed=5, given=requests(rng.exponential(1000, 400_000)))
    wait = result.queue_time[result.kept]
    for t in (1.0, 3.0, 6.0):
        assert np.mean(wait > t) == pytest.approx(0.7 * math.exp(-0.3 * t), rel=0.06)


def erlang_c(servers: int, load: float) -> float:
    """P(wait) of M/M/k with `load` = λE[S] (Erlang 1917; Kleinrock I, eq. 3.40)."""
    terms = [load**i / math.factorial(i) for i in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "rho"), [(2, 0.8), (4, 0.7)])
def test_mean_wait_is_erlang_c(servers: int, rho: float) -> None:
    """M/M/k by slots: decodes that do not slow each other and prompts that take no time."""
    steps = 2000
    lane = Lane(
        step=StepTime(w=1 / steps, c=0, e=0, a=0, k=0),
        max_num_seqs=servers,
        max_num_batched_tokens=UNLIMITED,
    )
    system = Collocated(lane=lane, replicas=1, lengths=ANY)
    means = []
    for seed in range(10):
        rng = np.random.default_rng(2000 + seed)
        # A geometric law of mean 2,000 steps is exponential up to one step in 2,000.
        outputs = rng.geometric(1 / steps, 60_000)
        given = Requests(input_len=np.ones(len(outputs), dtype=int), output_len=outputs)
        result = simulate(system, servers * rho, seed=seed, given=given)
        means.append(result.queue_time[result.kept].mean())
    want = erlang_c(servers, servers * rho) / (servers * (1 - rho))
    error = float(np.std(means, ddof=1) / math.sqrt(len(means)))
    # Requests join at step boundaries: up to one step of 1/2,000 s more.
    assert np.mean(means) == pytest.approx(want, abs=4 * error + 1 / steps)


def sharing(slots: int = 1 << 12) -> Disaggregated:
    """A decode pool whose step costs time per sequence only: n requests share the processor."""
    free = Lane(step=StepTime(w=1e-12, c=0, e=0, a=0, k=0))
    decode = Lane(
        step=StepTime(w=1e-12, c=0, e=0, a=0, k=0, a_seq=1e-3),
        max_num_seqs=slots,
        max_num_batched_tokens=UNLIMITED,
    )
    return Disaggregated(
        prefill=free, prefill_replicas=1, decode=decode, decode_replicas=1, lengths=ANY
    )


@pytest.mark.parametrize("law", ["geometric", "fixed", "two"])
def test_processor_sharing_is_insensitive(law: str) -> None:
    """M/G/1-PS: E[T | x] = x/(1 − ρ), whatever the law (Kleinrock, Queueing Systems II, §4.4)."""
    rho, steps = 0.8, 1000
    means = []
    for seed in range(10):
        rng = np.random.default_rng(3000 + seed)
        n = 40_000
        decode_steps = {
            "geometric": rng.geometric(1 / steps, n),
            "fixed": np.full(n, steps),
            "two": rng.choice([steps // 4, 4 * steps], n, p=[0.8, 0.2]),
        }[law]
        given = Requests(input_len=np.ones(n, dtype=int), output_len=decode_steps + 1)
        rate = rho / (1e-3 * decode_steps.mean())
        result = simulate(sharing(), rate, seed=seed, given=given)
        kept = result.kept
        # The ratio of means is E[T]/E[x] = 1/(1 − ρ).
        means.append(result.e2el[kept].mean() / (1e-3 * decode_steps[kept].mean()))
    error = float(np.std(means, ddof=1) / math.sqrt(len(means)))
    assert np.mean(means) == pytest.approx(1 / (1 - rho), abs=4 * error)
    assert error < 0.1


def test_processor_sharing_slows_all_lengths_alike() -> None:
    """M/M/1-PS: E[T | x]/x = 1/(1 − ρ) for every x (Kleinrock, Queueing Systems II, eq. 4.17)."""
    rng = np.random.default_rng(7)
    n, rho = 400_000, 0.7
    steps = rng.geometric(1 / 500, n)
    given = Requests(input_len=np.ones(n, dtype=int), output_len=steps + 1)
    result = simulate(sharing(), rho / 0.5, seed=7, given=given)
    tpot = result.tpot / 1e-3
    for low, high in ((50, 150), (400, 600), (1000, 2000)):
        chosen = result.kept & (steps >= low) & (steps < high)
        slowdown = (result.e2el[chosen]).sum() / (1e-3 * steps[chosen].sum())
        assert slowdown == pytest.approx(1 / (1 - rho), rel=0.03)
    assert tpot[result.kept].min() >= 1.0 - 1e-6


@pytest.mark.parametrize("law", ["fixed", "geometric"])
def test_infinite_servers_are_poisson(law: str) -> None:
    """M/G/∞: the number present is Poisson with mean λE[S] (Takács 1962; Kleinrock I, §3.4)."""
    rate, steps = 20.0, 1000
    lane = Lane(
        step=StepTime(w=1e-3, c=0, e=0, a=0, k=0),
        max_num_seqs=4096,
        max_num_batched_tokens=UNLIMITED,
    )
    system = Collocated(lane=lane, replicas=1, lengths=ANY)
    rng = np.random.default_rng(11)
    n = 200_000
    outputs = np.full(n, steps) if law == "fixed" else rng.geometric(1 / steps, n)
    given = Requests(input_len=np.ones(n, dtype=int), output_len=outputs)
    result = simulate(system, rate, seed=11, given=given)
    start, end = result.arrival, result.last_token
    # Sample the number present at random times in the middle of the run.
    at = np.sort(rng.uniform(start[n // 10], start[9 * n // 10], 20_000))
    present = np.searchsorted(start, at, side="right") - np.searchsorted(np.sort(end), at, "right")
    # Half a step of waiting for the boundary on average comes on top of the service.
    want = rate * (outputs.mean() * 1e-3 + 0.5e-3)
    assert present.mean() == pytest.approx(want, rel=0.02)
    assert present.var() == pytest.approx(want, rel=0.08)


def test_replications_cover_the_mean() -> None:
    """The 95 % interval over replications holds the M/D/1 mean in most of 20 tries."""
    want = pollaczek_khinchine(0.6, 1.0, 0.0)
    lengths = Lengths(inputs=np.array([1000.0]), input_weights=ONE, outputs=ONE, output_weights=ONE)
    base = one_at_a_time()
    system = Collocated(lane=base.lane, replicas=1, lengths=lengths)
    hits = 0
    for seed in range(20):
        low, high = replicate(system, 0.6, 6, requests=10_000, seed=seed).queue_time.interval(
            "mean"
        )
        hits += low <= want <= high
    assert hits >= 16
