"""Constants of the operator forms from timings, with standard errors.

Residuals are ln(predicted/measured): kernels span five orders of magnitude. Parameters are fitted
as logarithms, so they stay positive, with a soft-L1 loss, because kernel libraries switch
algorithms between neighbouring sizes. The standard errors are those of the Gauss-Newton
approximation at the optimum. A parameter that the points do not determine (standard error above
`UNIDENTIFIED` in log) takes a stated value instead and is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.arrays import Floats

Predict = Callable[[Mapping[str, float]], Floats]

UNIDENTIFIED = 1.0
"""Log standard error above which a parameter counts as undetermined: a factor e either way."""

LOSS_SCALE = 0.1
"""Residuals beyond about 10 % count less than quadratically."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """One constant: value and standard error in its own unit.

    identified : False if the points do not determine it and `value` is a stand-in
    """

    name: str
    value: float
    sd: float
    identified: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """Constants of one form, and how well it describes its points.

    median, p90 : of |predicted/measured − 1| [1]; bias : median of predicted/measured − 1 [1]
    """

    form: str
    constants: tuple[Fitted, ...]
    points: int
    median: float
    p90: float
    bias: float

    def value(self, name: str) -> float:
        """Return a constant by name; `KeyError` if the form has none of that name."""
        return {c.name: c.value for c in self.constants}[name]


def fit_form(
    form: str,
    predict: Predict,
    measured: Floats,
    start: Mapping[str, float],
    absent: Mapping[str, float] | None = None,
    keep: Sequence[str] = (),
) -> Fit | None:
    """Fit the parameters named in `start` to `measured` [s]; None with too few points.

    predict : from parameters by name to predictions, float64[n] like `measured`
    absent : values of parameters that the points do not determine; default: those of `start`
    keep : parameters without which the form makes no sense: fitted however badly determined
    """
    names = list(start)
    stand_in = start if absent is None else absent
    while names and measured.size > len(names):
        fixed = {n: stand_in[n] for n in start if n not in names}
        values, errors = _solve(predict, measured, {n: start[n] for n in names}, fixed)
        doubtful = [0.0 if n in keep else float(e) for n, e in zip(names, errors, strict=True)]
        worst = int(np.argmax(doubtful))
        if doubtful[worst] > UNIDENTIFIED:
            names.pop(worst)
            continue
        fitted = dict(zip(names, values, strict=True))
        sd = dict(zip(names, values * errors, strict=True))
        ratio = predict({**fixed, **fitted}) / measured - 1.0
        return Fit(
            form,
            tuple(
                Fitted(n, float(fitted[n]), float(sd[n]))
                if n in fitted
                else Fitted(n, stand_in[n], float("nan"), identified=False)
                for n in start
            ),
            measured.size,
            float(np.median(np.abs(ratio))),
            float(np.quantile(np.abs(ratio), 0.9)),
            float(np.median(ratio)),
        )
    return None


def _solve(
    predict: Predict, measured: Floats, start: Mapping[str, float], fixed: Mapping[str, float]
) -> tuple[Floats, Floats]:
    """Return fitted values and their standard errors in log."""
    from scipy.optimize import least_squares

    names = list(start)
    origin = np.log(np.array([start[n] for n in names]))

    def residuals(theta: Floats) -> Floats:
        values = dict(zip(names, np.exp(theta), strict=True))
        return np.log(predict({**fixed, **values}) / measured)

    found: Any = least_squares(
        residuals,
        origin,
        loss="soft_l1",
        f_scale=LOSS_SCALE,
        bounds=(origin - 8.0, origin + 8.0),
        x_scale="jac",
    )
    freedom = max(1, measured.size - len(names))
    variance = 2.0 * found.cost / freedom
    hessian = found.jac.T @ found.jac
    eigenvalues, vectors = np.linalg.eigh(hessian)
    seen = eigenvalues > 1e-9 * max(float(eigenvalues.max()), 1e-300)
    spread = np.sum(vectors[:, seen] ** 2 / eigenvalues[seen], axis=1)
    errors = np.sqrt(max(variance, 1e-12) * spread)
    # A direction that no point sees has infinite variance; who has most part in it is blamed most.
    blind = np.sum(vectors[:, ~seen] ** 2, axis=1)
    return np.exp(found.x), np.where(blind > 1e-6, 1e6 * UNIDENTIFIED * blind, errors)


def fit_linear(
    form: str, columns: Mapping[str, Sequence[float]], measured: Sequence[float]
) -> Fit | None:
    """Fit measured = Σ coefficient · column by least squares, coefficients ≥ 0 [s]; None if short.

    Used for host times, which vary by tens of per cent and not by orders of magnitude.
    """
    from scipy.optimize import nnls

    names = list(columns)
    design = np.column_stack([np.asarray(columns[n], dtype=np.float64) for n in names])
    y = np.asarray(measured, dtype=np.float64)
    if y.size <= len(names):
        return None
    values, _ = nnls(design, y)
    active = values > 0
    predicted = design @ values
    variance = float(np.sum((predicted - y) ** 2)) / max(1, y.size - int(active.sum()))
    normal = np.linalg.pinv(design[:, active].T @ design[:, active])
    sd = np.full(len(names), np.nan)
    sd[active] = np.sqrt(variance * np.diag(normal))
    ratio = predicted / y - 1.0
    return Fit(
        form,
        tuple(
            Fitted(n, float(v), float(s), identified=bool(a))
            for n, v, s, a in zip(names, values, sd, active, strict=True)
        ),
        int(y.size),
        float(np.median(np.abs(ratio))),
        float(np.quantile(np.abs(ratio), 0.9)),
        float(np.median(ratio)),
    )
