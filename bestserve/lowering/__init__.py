"""The only place that turns what users write into what the models compute with."""

from bestserve.lowering.lanes import LaneResult
from bestserve.lowering.lengths import lower_lengths
from bestserve.lowering.problem import Lowered, decode_breakdown, lower, unsuited
from bestserve.lowering.transfer import kv_transfer, transfer_latency

__all__ = [
    "LaneResult",
    "Lowered",
    "decode_breakdown",
    "kv_transfer",
    "lower",
    "lower_lengths",
    "transfer_latency",
    "unsuited",
]
