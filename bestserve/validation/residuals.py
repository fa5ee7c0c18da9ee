"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.34, 0.97, 0.1, 0.3, 0.62),
    ("closed", "moe"): (0.52, 1.05, 0.37, 0.63, 0.5),
    ("burst", "dense"): (0.8, 0.8, 0.65, 0.81, 0.68),
    ("burst", "moe"): (0.92, 0.79, 0.59, 0.9, 0.56),
    ("open", "dense"): (0.9, 1.21, 0.47, 1.47, 0.52),
    ("open", "moe"): (0.89, 1.61, 0.45, 0.45, 0.52),
    ("knee", "dense"): (0.49, 0.94, 0.36, 0.37, 0.23),
    ("knee", "moe"): (0.44, 0.91, 0.13, 0.22, 0.4),
    ("disaggregated", "dense"): (1.32, 0.85, 0.44, 0.8, 0.44),
    ("disaggregated", "moe"): (1.32, 0.85, 0.44, 0.8, 0.44),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]: 90 % of the left-out figures lie inside."""
