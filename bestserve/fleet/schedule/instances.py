"""What an instance of a pool is, and the queueing system that some of its lanes are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bestserve.fleet.referee import INSTANT
from bestserve.models.step.device import Parallelism
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Hybrid,
    Lane,
    Lengths,
    System,
    Transfer,
)

NAMES = {"m": "collocated", "p": "prefill", "d": "decode", "h": "hybrid"}
NO_TRANSFER = Transfer()


@dataclass(frozen=True, slots=True)
class Instances:
    """One pool of a schedule: what an instance is.

    role : "m", "p", "d", or "h" for a hybrid; label : one instance, as strategies are written
    gpus, parallelism : of an instance, of a hybrid that of its decode lanes
    lanes : of an instance; lane : each of them; a hybrid counts as one lane, which is `unit`
    """

    role: str
    label: str
    gpus: int
    parallelism: Parallelism
    lane: Lane
    lanes: int
    unit: Hybrid | None = None

    @property
    def name(self) -> str:
        """The role in words."""
        return NAMES[self.role]

    def system(
        self,
        lanes: int,
        lengths: Lengths,
        arrivals: Arrivals,
        transfer: Transfer = NO_TRANSFER,
    ) -> System:
        """Return so many lanes by themselves; prefill has requests of one token, decode no prompts.

        transfer : of the KV that comes to a decode pool
        """
        if self.unit is not None:
            return replace(
                self.unit,
                prefill_replicas=lanes * self.unit.prefill_replicas,
                decode_replicas=lanes * self.unit.decode_replicas,
                lengths=lengths,
                arrivals=arrivals,
            )
        if self.role != "d":
            return Collocated(lane=self.lane, replicas=lanes, lengths=lengths, arrivals=arrivals)
        return Disaggregated(
            prefill=INSTANT,
            prefill_replicas=1,
            decode=self.lane,
            decode_replicas=lanes,
            lengths=lengths,
            transfer=transfer,
            arrivals=arrivals,
        )
