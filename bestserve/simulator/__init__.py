"""The simulator: an exact, fast referee that shares no queueing formula with the models.

`simulate(system, rate)` runs one system; see `docs/simulator.md` for what it models.
"""

from bestserve.simulator.inputs import Requests
from bestserve.simulator.result import PoolUse, SimulationResult, Status
from bestserve.simulator.run import simulate

__all__ = ["PoolUse", "Requests", "SimulationResult", "Status", "simulate"]
