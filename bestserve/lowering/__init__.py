"""The only place that turns what users write into what the models compute with."""

from bestserve.lowering.lengths import lower_lengths
from bestserve.lowering.problem import (
    LaneResult,
    Lowered,
    calibration_doubts,
    lower,
    splitting_doubts,
    unsuited,
)

__all__ = [
    "LaneResult",
    "Lowered",
    "calibration_doubts",
    "lower",
    "lower_lengths",
    "splitting_doubts",
    "unsuited",
]
