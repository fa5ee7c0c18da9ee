"""The Python interface: one function a question, the same words as the command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from bestserve.answers.doubts import trust_in
from bestserve.lowering import lower
from bestserve.results.prediction import Prediction
from bestserve.results.ranking import RankedStrategy, Ranking
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

if TYPE_CHECKING:
    from bestserve.analysis.results import SensitivityReport
    from bestserve.analysis.sweep import Sweep
    from bestserve.analysis.uncertainty import Uncertainty
    from bestserve.analysis.versus import Versus
    from bestserve.analysis.waterfall import Explanation
    from bestserve.analysis.whatif import WhatIf
    from bestserve.results.caching import CachePlans, HitNeeded
    from bestserve.results.capacity import Headroom, Size
    from bestserve.results.memory import Memory
    from bestserve.results.smooth import SmoothRanking
    from bestserve.simulator import SimulationResult

P = ParamSpec("P")
R = TypeVar("R")
Method = Literal["auto", "analytic", "simulated"]
Progress = Callable[[str], None]


def single_threaded(question: Callable[P, R]) -> Callable[P, R]:
    """Answer with one BLAS thread: on small matrices more of them cost ten times the work."""

    @functools.wraps(question)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from bestserve.host.threads import one_blas_thread

        with one_blas_thread():
            return question(*args, **kwargs)

    return wrapped


@single_threaded
def rank(problem: Problem, *, verify: bool = True, progress: Progress | None = None) -> Ranking:
    """Rank all strategies that fit the GPU budget by goodput.

    Parameters
    ----------
    problem : what to serve, on what, for whom; needs an SLO
    verify : simulate the strategies that decide, at their goodput: the first ones, and those whose
        interval reaches the first
    progress : called with a short text as the work goes on

    Raises
    ------
    InputError : no SLO, or a closed loop
    UnknownNameError, DataError : model, hardware or engine cannot be found or read

    Nothing feasible is no error: the table is empty and `rejected` says why.
    """
    from bestserve.answers.ranking import ranking

    return ranking(problem, verify=verify, progress=progress)


@single_threaded
def rank_smooth(
    problem: Problem, *, wait_cost: float | None = None, progress: Progress | None = None
) -> SmoothRanking:
    """Rank the strategies that lead by goodput by smooth goodput, from runs.

    Tokens a second less `wait_cost` for each second that a reader waits in all who starts when the
    first token is due and reads at the objectives' pace (arXiv 2410.14257); each strategy at the
    rate at which that is highest.

    wait_cost : [tokens/s]; default: one over the pace, what could have been read meanwhile

    Raises InputError where the objectives state no start and pace, InfeasibleError where no
    strategy is feasible.
    """
    from bestserve.answers.smooth import smooth_ranking

    return smooth_ranking(problem, wait_cost, progress)


def memory(
    problem: Problem,
    strategy: str | Strategy,
    *,
    max_model_len: int | None = None,
    engine_version: str = "",
    block_size: int | None = None,
    enforce_eager: bool = False,
    concurrency: float | None = None,
    context: float | None = None,
    startup_log: str | None = None,
    speculative_config: str | Mapping[str, Any] | None = None,
    request_rate: float | None = None,
) -> Memory:
    """Say where the memory of one instance's GPUs goes, and how many requests its cache holds.

    Parameters
    ----------
    strategy : "1m-tp4"; of several pools the first
    max_model_len : longest request that is admitted [tokens]; default: the model's longest context
    engine_version : "0.19": decides what the engine counts; default: the preset's
    block_size : tokens of a block of the cache; enforce_eager : without CUDA graphs
    concurrency, context : wanted requests at once and their length: the least GPUs, and the
        utilization, that hold them
    startup_log : path of a server's log: its figures beside the predictions, and its reserve
    speculative_config : vLLM's, as a mapping or JSON, e.g. {"method": "eagle3"}: weights and cache
        of what drafts (mtp, eagle, eagle3, a draft model) are counted
    request_rate : at which the working set of conversations is counted [req/s]

    Raises
    ------
    InputError : no model, a parallelism that cannot be built, a length beyond the model's
    UnknownNameError, DataError : model, hardware, engine or log cannot be found or read
    """
    from bestserve.answers.memory import MemorySettings
    from bestserve.answers.memory import memory as answer

    return answer(
        problem,
        strategy,
        MemorySettings(
            max_model_len=max_model_len,
            engine_version=engine_version,
            block_size=block_size,
            enforce_eager=enforce_eager,
            concurrency=concurrency,
            context=context,
            startup_log=startup_log,
            speculative_config=speculative_config,
            request_rate=request_rate,
        ),
    )


@single_threaded
def predict(
    problem: Problem,
    strategy: str | Strategy,
    request_rate: float | None = None,
    *,
    method: Method = "auto",
) -> Prediction:
    """Predict TTFT, TPOT and E2EL of one strategy at one rate.

    Parameters
    ----------
    strategy : "2m-tp4", "3p2d-tp4", "3p-tp2+2d-tp4"
    request_rate : open arrivals [requests/s]; not for closed loops
    method : "auto" takes the analytic answer where a run at that rate agrees with it, and the
        run's where it does not

    Raises InputError, InfeasibleError (the strategy cannot be built), UnknownNameError, DataError.
    An unstable queue is no error but a status.
    """
    from bestserve.answers.predict import predict_strategy
    from bestserve.answers.prediction_intervals import prediction_intervals

    lowered, parsed = lower(problem), Strategy.parse(strategy)
    found = predict_strategy(lowered, parsed, request_rate, method)
    return replace(
        found,
        trust=trust_in(problem, found.strategy, found.trust),
        intervals=prediction_intervals(lowered, parsed, found),
    )


@single_threaded
def goodput(
    problem: Problem, strategy: str | Strategy, *, method: Method = "auto"
) -> RankedStrategy:
    """Return the highest rate at which a strategy meets the objectives, and how it stands there.

    method : "auto" takes the analytic answer where runs at that rate and beside it agree with it
        to 3 %, and simulates where they do not

    Raises as `predict`; InputError also without an SLO; InfeasibleError if even a request alone
    misses the objectives, with the arithmetic.
    """
    from bestserve.answers.economics import priced
    from bestserve.answers.goodput import goodput_of
    from bestserve.solvers.ranking import checked_problem

    lowered = lower(checked_problem(problem))
    found = priced(lowered, goodput_of(lowered, Strategy.parse(strategy), method))
    return replace(found, trust=trust_in(problem, found.strategy, found.trust))


@single_threaded
def hit_needed(problem: Problem, strategy: str | Strategy, request_rate: float) -> HitNeeded:
    """Return the share of prompt tokens that must be cached for one strategy to carry a rate.

    By the formulas, every prompt finding the same share of its tokens; a run at that share gives
    `goodput`. Where the workload says what prompts share, `found` is what the strategy's own caches
    find at the rate. Raises as `goodput`.
    """
    from bestserve.answers.caching import hit_needed as answer

    return answer(problem, strategy, request_rate)


@single_threaded
def cache_plans(
    problem: Problem,
    routings: Sequence[str] = ("random", "prefix_aware"),
    gigabytes: Sequence[float] = (),
    *,
    progress: Progress | None = None,
) -> CachePlans:
    """Rank under several routings and sizes of host memory, and say what each brings.

    Parameters
    ----------
    problem : with a workload that says what prompts share; a host tier states the bandwidth at
        which sizes are read
    routings : the first is what others are compared with
    gigabytes : host memory for KV blocks, of each instance [10⁹ B]; 0: none

    Raises InputError, and InfeasibleError where no plan carries anything.
    """
    from bestserve.answers.caching import cache_plans as answer

    return answer(problem, routings, gigabytes, progress)


@single_threaded
def headroom(problem: Problem, strategy: str | Strategy, request_rate: float) -> Headroom:
    """Return by how much the load of a strategy may grow within the objectives.

    request_rate : today's [requests/s]

    Raises as `goodput`.
    """
    from bestserve.answers.capacity import headroom_of

    return headroom_of(problem, strategy, request_rate)


@single_threaded
def size(
    problem: Problem,
    request_rate: float,
    *,
    headroom: float = 0.0,
    progress: Progress | None = None,
) -> Size:
    """Return the fewest GPUs that carry a rate within the objectives, and the strategy on them.

    request_rate : to be carried [requests/s]; headroom : to spare, as a share of it (0.2: 20 %)
    `problem.gpus` is not looked at.

    Raises as `goodput`; InfeasibleError where no number of GPUs carries the rate.
    """
    from bestserve.answers.capacity import size_of

    return size_of(problem, request_rate, headroom, progress)


def simulate(
    problem: Problem,
    strategy: str | Strategy,
    request_rate: float | None = None,
    *,
    requests: int = 20_000,
    seed: int = 0,
    **options: Any,
) -> SimulationResult:
    """Simulate one strategy request by request; `options` as `bestserve.simulator.simulate`.

    Raises as `predict`.
    """
    from bestserve.answers.predict import checked_rate, recorded_requests
    from bestserve.simulator import simulate as run

    rate = checked_rate(problem, request_rate)
    system = lower(problem).system(strategy)
    options.setdefault("given", recorded_requests(problem, requests))
    return run(system, rate or None, requests=requests, seed=seed, **options)


@single_threaded
def sensitivity(
    problem: Problem,
    strategy: str | Strategy | None = None,
    *,
    figures: Sequence[str] | None = None,
    request_rate: float | None = None,
    method: Method = "auto",
    progress: Progress | None = None,
) -> SensitivityReport:
    """Return by how much each figure moves goodput, TTFT and TPOT of a strategy.

    Parameters
    ----------
    strategy : default: the best of the ranking
    figures : those wanted, e.g. ["hardware.memory_bandwidth", "slo.ttft"]; default: all
    request_rate : where the elasticities of TTFT and TPOT are taken [req/s]; default 80 % of the
        goodput
    method : "auto" simulates on common random numbers where the analytic answer has low trust

    Raises as `goodput`.
    """
    from bestserve.analysis.elasticity import elasticities
    from bestserve.answers.predict import checked_rate

    if request_rate is not None:
        checked_rate(problem, request_rate)
    found = elasticities(
        problem,
        _named(problem, strategy, progress),
        figures=figures,
        request_rate=request_rate,
        method=method,
        progress=progress,
    )
    return replace(found, trust=trust_in(problem, found.strategy, found.trust))


@single_threaded
def what_if(
    problem: Problem,
    scenarios: Sequence[Mapping[str, float | str]] | Mapping[str, float | str],
    *,
    strategy: str | Strategy | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> WhatIf:
    """Return the answer with figures changed, side by side with the problem as stated.

    Parameters
    ----------
    scenarios : one mapping or several, e.g. [{"hardware.memory_bandwidth": "x1.5"},
        {"hardware": "h200"}, {"slo.tpot": 0.03, "gpus": 16}]
    strategy : look at this one only; default: the best one of each scenario
    verify : simulate the answers at their goodput, as `rank` and `goodput` do

    Raises InputError or UnknownNameError for changes that cannot be made.
    """
    from bestserve.analysis.whatif import what_if as ask

    return ask(problem, scenarios, strategy=strategy, verify=verify, progress=progress)


@single_threaded
def sweep(
    problem: Problem,
    axes: Mapping[str, Sequence[float | str]],
    *,
    strategies: Sequence[str] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Return which strategy wins over one or two figures.

    Parameters
    ----------
    axes : e.g. {"workload.input_len": [500, 1000, 2000], "hardware.memory_bandwidth": ["x1", "x2"]}
    strategies : candidates; default: the leaders at the middle and at the corners
    jobs : joblib workers; default: the active joblib configuration

    Raises InputError, UnknownNameError.
    """
    from bestserve.analysis.sweep import sweep as ask

    return ask(problem, axes, strategies=strategies, jobs=jobs, progress=progress)


@single_threaded
def uncertainty(
    problem: Problem,
    *,
    strategies: Sequence[str] | None = None,
    samples: int = 48,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Uncertainty:
    """Return how sure the winner is under uncertain calibration, and what to measure.

    Parameters
    ----------
    strategies : candidates; default: the best of the ranking's first three families
    samples : of the uncertain factors, shared by all candidates

    Raises InputError (no SLO, own step time), InfeasibleError.
    """
    from bestserve.analysis.uncertainty import uncertainty as ask

    return ask(
        problem, strategies=strategies, samples=samples, seed=seed, jobs=jobs, progress=progress
    )


@single_threaded
def explain(
    problem: Problem, strategy: str | Strategy, versus: str | Strategy | None = None
) -> Explanation | Versus:
    """Return the way from request to goodput of a strategy, or why it beats another (or loses).

    Raises as `goodput`.
    """
    if versus is not None:
        from bestserve.analysis.versus import versus as compare

        return compare(problem, strategy, versus)
    from bestserve.analysis.waterfall import explanation

    found = explanation(problem, strategy)
    return replace(found, trust=trust_in(problem, found.strategy, found.trust))


def _named(
    problem: Problem, strategy: str | Strategy | None, progress: Progress | None
) -> str | Strategy:
    """Return the strategy, or the best of the ranking. Raises InfeasibleError."""
    if strategy is not None:
        return strategy
    from bestserve.answers.ranking import ranking

    return ranking(problem, progress=progress).best.strategy
