"""The only place that turns what users write into what the models compute with."""

from bestserve.lowering.lengths import lower_lengths
from bestserve.lowering.problem import (
    LaneResult,
    Lowered,
    lower,
    unsuited,
)

__all__ = [
    "LaneResult",
    "Lowered",
    "lower",
    "lower_lengths",
    "unsuited",
]
