"""Residual model error by kind of run, written by `validation/accuracy.py`: do not edit."""

from __future__ import annotations

RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {
    ("closed", "dense"): (0.25, 0.6, 0.1, 0.2, 0.1),
    ("closed", "moe"): (0.45, 0.8, 0.3, 0.5, 0.35),
    ("burst", "dense"): (0.6, 0.6, 0.5, 0.6, 0.4),
    ("burst", "moe"): (0.6, 0.6, 0.5, 0.7, 0.4),
    ("open", "dense"): (0.7, 0.8, 0.3, 0.6, 0.15),
    ("open", "moe"): (0.7, 0.8, 0.3, 0.6, 0.15),
    ("knee", "dense"): (0.3, 0.5, 0.3, 0.3, 0.1),
    ("knee", "moe"): (0.3, 0.5, 0.3, 0.3, 0.1),
    ("disaggregated", "dense"): (0.5, 0.6, 0.25, 0.3, 0.2),
    ("disaggregated", "moe"): (0.5, 0.6, 0.25, 0.3, 0.2),
}
"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its tail, TPOT,
its tail and throughput [1]."""
