"""Fit the odds of `bestserve/models/trust.py` to rows of `agreement.py`.

    python validation/agreement.py --seed 40507 --count 110 --formulas-only --rows rows.jsonl
    python validation/agreement.py --seed 613 --count 275 --formulas-only --searched 0 \
        --rows more.jsonl
    python validation/trust.py rows.jsonl more.jsonl

Each row is up to six observations: TTFT and TPOT at a rate (mean and P90; P99), and the goodput by
what decides it, of joint and E2EL objectives both latencies where both do. An observation is
whether that was off by more than 5 % beyond sampling noise; the terms are the product's own. Terms
enter one by one while they tell more of questions left out, in folds by question; what the verdicts
would be worth is told for those left out, too.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from agreement_report import Row, goodput_off, latency_off

from bestserve.models.trust import ODDS, SHARP, Limits, Sight, Situation, terms

FOLDS = 8
RIDGE = 0.5
LEAST_GAIN = 0.0005
"""Mean log likelihood that a term must add on questions left out."""

NEVER = {"one", "apart"}
"""Terms whose weight may have any sign: those of the others is that of a doubt."""


@dataclass(frozen=True)
class Observation:
    """One verdict to be given: by what limits it, with its terms, and whether it was off."""

    question: int
    kind: str
    objective: Limits
    terms: dict[str, float]
    off: bool


def observations(row: Row) -> list[Observation]:
    """Return what a row has to say."""
    found = []
    here, there = (row.get(key) for key in ("situation", "at goodput"))
    number = zlib.crc32(row["text"].encode())
    if here and here["firm"]:
        for objective in ("ttft", "tpot"):
            for tail, names in ((False, ("mean", "p90")), (True, ("p99",))):
                keys = [f"{objective} {name}" for name in names]
                if all(key in row["errors"] for key in keys):
                    sight = Sight(discrepancy=here["readings"][tail])
                    kind = "P99" if tail else "mean and P90"
                    t = terms(_situation(here), sight)
                    of: Limits = "ttft" if objective == "ttft" else "tpot at a rate"
                    found.append(Observation(number, kind, of, t, latency_off(row, keys)))
    if there and there["firm"] and row["goodput"] > 0 and row.get("simulated", 0.0) > 0:
        width = float(np.log(row["high"] / row["low"]))
        sight = Sight(width=max(width, SHARP / 2), discrepancy=there["readings"][0])
        t = terms(_situation(there), sight)
        off = goodput_off(row)
        found += [Observation(number, "goodput", name, t, off) for name in row["deciders"]]
    return found


def _situation(values: Row) -> Situation:
    return Situation(**{f.name: values[f.name] for f in fields(Situation)})


def logistic(x: np.ndarray, y: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """Return weights by penalised Newton steps; those of `signed` columns stay ≥ 0."""
    weights = np.zeros(x.shape[1])
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    for _ in range(80):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (y - p) - penalty @ weights
        free = ~signed | (weights > 0) | (slope > 0)
        curve = (x.T * (p * (1 - p) + 1e-9)) @ x + penalty
        step = np.zeros_like(weights)
        step[free] = np.linalg.solve(curve[np.ix_(free, free)], slope[free])
        weights = weights + np.clip(step, -2, 2)
        weights[signed] = np.maximum(weights[signed], 0.0)
    return weights


def left_out(x: np.ndarray, y: np.ndarray, signed: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return log odds of observations by weights fitted without their questions."""
    odds = np.zeros(y.size)
    for k in range(FOLDS):
        rest = fold != k
        odds[~rest] = x[~rest] @ logistic(x[rest], y[rest], signed)
    return odds


def chosen(found: Sequence[Observation]) -> tuple[dict[str, float], np.ndarray]:
    """Return weights by name, and the log odds of the observations when left out."""
    names = list(found[0].terms)
    x = np.array([[o.terms[n] for n in names] for o in found])
    y = np.array([o.off for o in found], dtype=float)
    fold = np.array([o.question for o in found]) % FOLDS

    def worth(keep: list[str]) -> tuple[float, np.ndarray]:
        columns = x[:, [names.index(n) for n in keep]]
        odds = left_out(columns, y, np.array([n not in NEVER for n in keep]), fold)
        return -float(np.mean(np.logaddexp(0, -odds * (2 * y - 1)))), odds

    keep, (best, odds) = ["one"], worth(["one"])
    while len(keep) < len(names):
        tried = {n: worth([*keep, n]) for n in names if n not in keep}
        name = max(tried, key=lambda n: tried[n][0])
        if tried[name][0] < best + LEAST_GAIN:
            break
        best, odds = tried[name]
        keep.append(name)
    columns = x[:, [names.index(n) for n in keep]]
    weights = logistic(columns, y, np.array([n not in NEVER for n in keep]))
    return dict(zip(keep, (round(float(w), 2) for w in weights), strict=True)), odds


def main(paths: Sequence[str]) -> int:
    """Print weights, and what thresholds would be worth."""
    rows = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
    alone = [row | row["alone"] for row in rows if "alone" in row]
    found = [o for row in alone if "errors" in row for o in observations(row)]
    print(f"{len(rows)} rows, {len(found)} observations")
    for objective in ODDS:
        mine = [o for o in found if o.objective == objective]
        if not mine:
            continue
        weights, odds = chosen(mine)
        print(f"{objective}: {weights}")
        for kind in ("mean and P90", "P99", "goodput"):
            of = np.array([o.kind == kind for o in mine])
            off = np.array([o.off for o in mine]) & of
            good = of & ~off
            shown = []
            for chance in (0.04, 0.07, 0.1, 0.12, 0.15, 0.2):
                low = odds > np.log(chance / (1 - chance))
                caught, lost = (low[group].sum() / max(group.sum(), 1) for group in (off, good))
                shown.append(f"{chance:.2f}: {caught:.0%} / {lost:.0%}")
            print(f"  {kind} ({off.sum()} off, {good.sum()} good) low trust: {', '.join(shown)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
