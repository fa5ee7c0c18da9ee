"""Length laws as the weighted atoms that queues and simulator take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bestserve.models.system import Lengths
from bestserve.specs.lengths import LengthLaw
from bestserve.specs.workload import Workload

JOINT_ATOMS = 24
"""Atoms per axis and class when lengths are joint."""


def lower_lengths(workload: Workload) -> Lengths:
    """Return a workload's lengths as atoms: independent for one class, joint for several."""
    hit = workload.prefix_cache_hit
    if workload.trace is not None:
        from bestserve.readers.recorded import recorded

        trace = recorded(workload)
        weights = np.full(trace.input_len.size, 1 / trace.input_len.size)
        return _lengths(trace.input_len, weights, trace.output_len, weights, hit, joint=True)
    if workload.classes:
        parts = [
            _product(c.input_len, c.output_len, c.share, JOINT_ATOMS) for c in workload.classes
        ]
        inputs, outputs, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        mixed = _lengths(inputs, weights, outputs, weights, hit, joint=True)
        sizes = [len(part[0]) for part in parts]
        return replace(
            mixed,
            kinds=np.repeat(np.arange(len(parts)), sizes),
            kind_names=tuple(c.name for c in workload.classes),
            priorities=tuple(c.priority for c in workload.classes),
        )
    assert workload.input_len is not None
    assert workload.output_len is not None
    return _lengths(*workload.input_len.atoms(), *workload.output_len.atoms(), hit, joint=False)


def _product(
    input_len: LengthLaw, output_len: LengthLaw, share: float, atoms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inputs, input_weights = input_len.atoms(atoms)
    outputs, output_weights = output_len.atoms(atoms)
    weights = share * np.outer(input_weights, output_weights).ravel()
    return np.repeat(inputs, outputs.size), np.tile(outputs, inputs.size), weights


def _lengths(
    inputs: np.ndarray,
    input_weights: np.ndarray,
    outputs: np.ndarray,
    output_weights: np.ndarray,
    hit: float,
    *,
    joint: bool,
) -> Lengths:
    as_float = [np.asarray(v, dtype=np.float64) for v in (inputs, outputs)]
    return Lengths(
        inputs=as_float[0],
        input_weights=input_weights,
        outputs=as_float[1],
        output_weights=output_weights,
        joint=joint,
        cached=np.floor(hit * as_float[0]) if hit > 0 else np.zeros(0),
    )
