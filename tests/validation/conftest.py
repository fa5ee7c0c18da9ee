"""Measured rows written by hand: no real measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bestserve.readers.tidy import TidyRow

CLOSED: dict[str, Any] = {
    "id": "closed",
    "model": "meta-llama/Llama-3.1-8B",
    "gpu": "NVIDIA H100 SXM",
    "engine": "vLLM",
    "engine_version": "0.11.0",
    "tp": 1,
    "num_gpus": 1,
    "request_rate": float("inf"),
    "concurrency": 8,
    "input_len_mean": 1000.0,
    "output_len_mean": 100.0,
    "ttft_mean_ms": 60.0,
    "tpot_mean_ms": 9.0,
}


@pytest.fixture(scope="session")
def make() -> Callable[..., TidyRow]:
    """A function that returns a plain closed-loop row with some fields changed."""

    def row(**changes: Any) -> TidyRow:
        return TidyRow(**{**CLOSED, **changes})

    return row
