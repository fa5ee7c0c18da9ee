"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.54, 1.09, 0.09, 0.85, 0.54),
    ("closed", "moe"): (0.58, 1.25, 0.49, 1.66, 0.67),
    ("burst", "dense"): (1.5, 1.0, 0.37, 0.92, 0.56),
    ("burst", "moe"): (1.18, 0.98, 0.81, 0.96, 0.93),
    ("open", "dense"): (0.41, 0.51, 0.15, 1.23, 0.25),
    ("open", "moe"): (0.49, 0.51, 0.23, 1.16, 0.25),
    ("knee", "dense"): (0.66, 0.65, 0.63, 0.39, 0.06),
    ("knee", "moe"): (0.5, 0.57, 0.54, 0.34, 0.06),
    ("disaggregated", "dense"): (0.33, 0.47, 0.12, 1.48, 0.21),
    ("disaggregated", "moe"): (0.09, 0.33, 0.02, 0.34, 0.17),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]: 90 % of the figures of left-out suites lie inside."""
