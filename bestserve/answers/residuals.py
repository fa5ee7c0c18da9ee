"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.42, 0.99, 0.08, 0.48, 0.43),
    ("closed", "moe"): (0.58, 0.97, 0.49, 0.85, 0.54),
    ("burst", "dense"): (1.5, 1.01, 0.37, 0.85, 0.54),
    ("burst", "moe"): (1.21, 0.99, 0.9, 0.91, 0.93),
    ("open", "dense"): (0.5, 0.59, 0.15, 1.23, 0.23),
    ("open", "moe"): (0.69, 0.63, 0.22, 1.12, 0.35),
    ("knee", "dense"): (0.6, 0.65, 0.77, 0.41, 0.09),
    ("knee", "moe"): (0.32, 0.54, 0.14, 0.13, 0.05),
    ("disaggregated", "dense"): (0.7, 0.74, 0.33, 1.56, 0.17),
    ("disaggregated", "moe"): (0.7, 0.74, 0.33, 0.61, 0.17),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]: 90 % of the figures of left-out suites lie inside."""
