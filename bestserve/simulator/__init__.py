"""The simulator: an exact, fast referee that shares no queueing formula with the models.

`simulate(system, rate)` runs one system, `replicate` gives confidence intervals,
`simulated_goodput` and `saturation_rate` search for rates. `docs/simulator.md` says what is
modelled and what real engines do beyond it.
"""

from bestserve.simulator.goodput import Limit, SimulatedGoodput, simulated_goodput
from bestserve.simulator.inputs import Requests
from bestserve.simulator.prefix_cache import prefix_hits, static_replicas
from bestserve.simulator.replay import trace_requests
from bestserve.simulator.replicate import Estimate, Replications, replicate
from bestserve.simulator.result import PoolUse, RunStatus, SimulationResult
from bestserve.simulator.run import simulate
from bestserve.simulator.saturation import saturation_rate
from bestserve.simulator.summary import Summary
from bestserve.simulator.vllm_log import to_vllm_detailed

__all__ = [
    "Estimate",
    "Limit",
    "PoolUse",
    "Replications",
    "Requests",
    "RunStatus",
    "SimulatedGoodput",
    "SimulationResult",
    "Summary",
    "prefix_hits",
    "replicate",
    "saturation_rate",
    "simulate",
    "simulated_goodput",
    "static_replicas",
    "to_vllm_detailed",
    "trace_requests",
]
