"""Systems that several tests of the queues use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Disaggregated, Lane, Lengths, Transfer

SMALL = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.7e-9, k=0.049e-6, a_step=0.8e-3, a_seq=35e-6)
LARGE = StepTime(w=13.5e-3, c=95e-6, e=3e-6, a=1.2e-9, k=0.031e-6, a_step=1.5e-3, a_seq=55e-6)


def atoms(mean: float, cv: float, count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Return whole-number atoms of a lognormal law; cv 0 is a fixed length."""
    if cv == 0:
        return np.array([float(mean)]), np.ones(1)
    from scipy.special import ndtri

    s = math.sqrt(math.log(1 + cv * cv))
    z = ndtri((np.arange(count) + 0.5) / count)
    return np.maximum(np.rint(mean * np.exp(s * z - s * s / 2)), 1.0), np.full(count, 1 / count)


def lengths(inputs: float, outputs: float, cv_in: float = 0.0, cv_out: float = 0.0) -> Lengths:
    a, p = atoms(inputs, cv_in)
    b, q = atoms(outputs, cv_out)
    return Lengths(inputs=a, input_weights=p, outputs=b, output_weights=q)


def collocated(
    policy: str = "chunked",
    law: Lengths | None = None,
    step: StepTime = SMALL,
    replicas: int = 1,
    system: dict[str, Any] | None = None,
    **lane: Any,
) -> Collocated:
    built = Lane(step=step, policy=policy, **lane)  # type: ignore[arg-type]
    law = lengths(1000, 200, 0.5, 0.8) if law is None else law
    return Collocated(lane=built, replicas=replicas, lengths=law, **(system or {}))


def disaggregated(
    prefill: int = 2,
    decode: int = 1,
    law: Lengths | None = None,
    transfer: Transfer | None = None,
    **lane: Any,
) -> Disaggregated:
    built = Lane(step=SMALL, **lane)
    law = lengths(1000, 200, 0.5, 0.8) if law is None else law
    return Disaggregated(
        prefill=built,
        prefill_replicas=prefill,
        decode=built,
        decode_replicas=decode,
        lengths=law,
        transfer=transfer or Transfer(),
    )
