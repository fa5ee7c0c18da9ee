"""The only place that turns what users write into what the models compute with."""

from bestserve.lowering.lengths import lower_lengths
from bestserve.lowering.problem import (
    KV_TRANSFER_SETUP,
    LaneResult,
    Lowered,
    calibration_doubts,
    lower,
)

__all__ = [
    "KV_TRANSFER_SETUP",
    "LaneResult",
    "Lowered",
    "calibration_doubts",
    "lower",
    "lower_lengths",
]
