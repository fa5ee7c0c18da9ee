"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.35, 0.98, 0.1, 0.3, 0.89),
    ("closed", "moe"): (0.54, 1.11, 0.39, 0.72, 0.52),
    ("burst", "dense"): (0.8, 0.8, 0.66, 0.81, 0.69),
    ("burst", "moe"): (0.88, 0.79, 0.61, 0.86, 0.68),
    ("open", "dense"): (0.87, 0.97, 0.49, 1.44, 0.56),
    ("open", "moe"): (0.85, 1.97, 0.49, 0.61, 0.56),
    ("knee", "dense"): (0.8, 0.98, 0.35, 0.37, 0.23),
    ("knee", "moe"): (0.45, 0.91, 0.16, 0.22, 0.39),
    ("disaggregated", "dense"): (1.03, 0.67, 0.36, 0.74, 0.44),
    ("disaggregated", "moe"): (1.03, 0.67, 0.36, 0.74, 0.44),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]: 90 % of the left-out figures lie inside."""
