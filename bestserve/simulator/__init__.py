"""The simulator: an exact, fast referee that shares no queueing formula with the models.

`simulate(system, rate)` runs one system, `replicate` gives confidence intervals, `saturation_rate`
the rate at which requests complete that always wait. `docs/simulator.md` says what is
modelled and what real engines do beyond it.
"""

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
    "PoolUse",
    "Replications",
    "Requests",
    "RunStatus",
    "SimulationResult",
    "Summary",
    "prefix_hits",
    "replicate",
    "saturation_rate",
    "simulate",
    "static_replicas",
    "to_vllm_detailed",
    "trace_requests",
]
