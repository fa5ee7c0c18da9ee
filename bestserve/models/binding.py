"""What stops a goodput from being higher; the value is what a user reads."""

from __future__ import annotations

from enum import StrEnum


class Binding(StrEnum):
    """The objective, or else the limit, that a higher rate would miss.

    >>> Binding.of("tpot").value, Binding.STABILITY.key
    ('TPOT objective', 'stability')
    """

    TTFT = "TTFT objective"
    TPOT = "TPOT objective"
    E2EL = "E2EL objective"
    DEADLINE = "token deadlines"
    STALL = "stall objective"
    FLUIDITY = "fluidity objective"
    ITL = "ITL objective"
    JOINT = "joint attainment"
    STABILITY = "capacity: the queue would become unstable"
    INFEASIBLE = "no rate meets the objective"

    @classmethod
    def of(cls, key: str) -> Binding:
        """Return the member of a latency's name, or "joint", "stability", "infeasible".

        Of an objective of one class, "chat.ttft", the member of its own name.
        """
        return cls[key.rpartition(".")[2].upper()]

    @property
    def key(self) -> str:
        """The name that targets and latencies have for it: "ttft", "joint", "stability", …"""
        return self.name.lower()

    @property
    def short(self) -> str:
        """The value in front of its colon."""
        return self.value.partition(":")[0]
