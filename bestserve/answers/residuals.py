"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.27, 0.32, 0.08, 0.49, 0.89),
    ("closed", "moe"): (0.5, 1.06, 0.38, 0.64, 0.51),
    ("burst", "dense"): (0.44, 0.44, 0.38, 0.67, 0.35),
    ("burst", "moe"): (0.87, 0.84, 0.59, 0.84, 0.67),
    ("open", "dense"): (0.44, 0.57, 0.17, 1.09, 0.21),
    ("open", "moe"): (0.44, 0.26, 0.17, 0.4, 0.21),
    ("knee", "dense"): (0.67, 0.8, 0.21, 0.26, 0.04),
    ("knee", "moe"): (0.31, 0.69, 0.1, 0.14, 0.04),
    ("disaggregated", "dense"): (0.25, 0.5, 0.21, 0.61, 0.17),
    ("disaggregated", "moe"): (0.25, 0.5, 0.21, 0.61, 0.17),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]: 90 % of the left-out figures lie inside."""
