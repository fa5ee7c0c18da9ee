"""Products of activations with weight matrices, as engines run them: quantise, then multiply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, WeightFormat
from bestserve.models.step.roofline import Cost, Number, gemm, quantise
from bestserve.models.step.sharding import Matrix


def products(
    matrices: Sequence[Matrix],
    rows: Mapping[str, Number],
    device: Device,
    form: WeightFormat,
    constants: OperatorConstants = DEFAULT,
    launch: float = 0.0,
) -> Iterator[tuple[str, Literal["gemm", "elementwise"], Cost]]:
    """Yield name, kind and cost of each GEMM, behind the pass that quantises its input, if any.

    rows : by `Matrix.rows`; form : of the stored weights (matrices that re-use others' weights
    multiply in bf16); launch : of the pass that quantises for per-tensor fp8 [s]
    """
    for matrix in matrices:
        precision = form.precision if matrix.stored else "bf16"
        width = form.bytes if matrix.stored else None
        m = rows[matrix.rows]
        own = launch if precision == "fp8" else 0.0
        ahead = quantise(m, matrix.k, device, precision, constants, own)
        if np.any(ahead.traffic):
            yield f"{matrix.name}.quantise", "elementwise", ahead
        cost = gemm(m, matrix.n, matrix.k, device, precision, constants, weight_bytes=width)
        yield matrix.name, "gemm", cost
