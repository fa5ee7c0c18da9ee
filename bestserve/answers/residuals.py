"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.42, 0.99, 0.08, 0.48, 0.43),
    ("closed", "moe"): (0.56, 0.97, 0.49, 0.85, 0.54),
    ("burst", "dense"): (1.0, 0.98, 0.37, 0.84, 0.49),
    ("burst", "moe"): (0.93, 0.86, 0.6, 0.84, 0.62),
    ("open", "dense"): (0.5, 0.45, 0.15, 1.23, 0.23),
    ("open", "moe"): (0.69, 0.54, 0.22, 1.12, 0.35),
    ("knee", "dense"): (0.69, 0.69, 0.51, 0.38, 0.06),
    ("knee", "moe"): (0.49, 0.65, 0.49, 0.32, 0.06),
    ("disaggregated", "dense"): (0.58, 0.69, 0.16, 1.12, 0.32),
    ("disaggregated", "moe"): (1.75, 1.78, 0.45, 0.63, 0.61),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]: 90 % of the figures of left-out suites lie inside."""
