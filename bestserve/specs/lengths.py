"""Laws of input and output lengths: closed-form moments, quantiles, and mean-exact atoms."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from bestserve.errors import InputError, shown
from bestserve.specs.base import Spec

Floats = NDArray[np.float64]

MOST_TOKENS = 100_000_000
"""Longest length [tokens]; ten times the longest context that any model takes."""
LONGEST_LAW = 200
"""Characters of a law as text."""
ATOMS = 96
"""Atoms a continuous law is cut into; 64 to 96 keep goodput within 0.1 % of the limit."""


class _Law(Spec):
    EXAMPLE: ClassVar[str] = ""
    """How the law is written on a command line."""

    def quantile(self, u: Floats) -> Floats:
        """Return the lengths at probabilities `u` in (0, 1) [tokens]."""
        raise NotImplementedError

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return (lengths, weights) whose mean is the law's: conditional means of quantile bins.

        Bin edges are sin²-spaced, fine in both tails, where percentiles and E[l²] are made.
        """
        edges = np.sin(np.pi * np.arange(count + 1) / (2 * count)) ** 2
        weights = np.diff(edges)
        inner = (np.arange(16) + 0.5) / 16
        u = edges[:-1, None] + weights[:, None] * inner
        lengths = self.quantile(np.clip(u, 1e-12, 1 - 1e-12)).mean(axis=1)
        lengths *= self.mean_tokens / float(lengths @ weights)
        return np.maximum(lengths, 1.0), weights

    @property
    def mean_tokens(self) -> float:
        """Mean length [tokens]."""
        raise NotImplementedError

    @property
    def scv(self) -> float:
        """Squared coefficient of variation [1]."""
        raise NotImplementedError


class Fixed(_Law):
    """Every length the same.

    >>> Fixed(128).mean_tokens
    128.0
    """

    EXAMPLE = "fixed:512"
    kind: Literal["fixed"] = "fixed"
    tokens: int = Field(ge=1, le=MOST_TOKENS)

    def __init__(self, tokens: int | None = None, /, **values: Any) -> None:
        super().__init__(**_positional("tokens", tokens, values))

    def quantile(self, u: Floats) -> Floats:
        """Return `tokens` for every u [tokens]."""
        return np.full(np.shape(u), float(self.tokens))

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return the one atom."""
        return np.array([float(self.tokens)]), np.ones(1)

    @property
    def mean_tokens(self) -> float:
        """Mean length [tokens]."""
        return float(self.tokens)

    @property
    def scv(self) -> float:
        """Squared coefficient of variation [1]."""
        return 0.0


class Uniform(_Law):
    """Uniform on the integers `low` … `high`, as the random data sets of benchmark clients."""

    EXAMPLE = "uniform:100,200 (lowest, highest)"
    kind: Literal["uniform"] = "uniform"
    low: int = Field(ge=1, le=MOST_TOKENS)
    high: int = Field(ge=1, le=MOST_TOKENS)

    def __init__(self, low: int | None = None, high: int | None = None, /, **values: Any) -> None:
        super().__init__(**_positional("high", high, _positional("low", low, values)))

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.high < self.low:
            raise ValueError(f"high = {self.high} is below low = {self.low}")
        return self

    def quantile(self, u: Floats) -> Floats:
        """Return the inverse distribution function at u [tokens]."""
        steps = np.floor(np.asarray(u) * (self.high - self.low + 1))
        return np.minimum(self.low + steps, float(self.high))

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return every length if there are few, else the means of quantile bins."""
        values = self.high - self.low + 1
        if values <= count:
            return np.arange(self.low, self.high + 1.0), np.full(values, 1 / values)
        return super().atoms(count)

    @property
    def mean_tokens(self) -> float:
        """Mean length [tokens]."""
        return (self.low + self.high) / 2

    @property
    def scv(self) -> float:
        """Squared coefficient of variation [1]."""
        return ((self.high - self.low + 1) ** 2 - 1) / 12 / self.mean_tokens**2


class LogNormal(_Law):
    """Lognormal with the given mean and coefficient of variation (not those of the logarithm).

    >>> LogNormal(2000, cv=0.8).scv
    0.64...
    """

    EXAMPLE = "lognormal:1500,0.8 (mean, coefficient of variation)"
    kind: Literal["lognormal"] = "lognormal"
    mean: float = Field(ge=1, le=MOST_TOKENS)
    cv: float = Field(gt=0, le=20)

    def __init__(
        self, mean: float | None = None, cv: float | None = None, /, **values: Any
    ) -> None:
        super().__init__(**_positional("cv", cv, _positional("mean", mean, values)))

    @property
    def _sigma(self) -> float:
        return math.sqrt(math.log1p(self.cv**2))

    def quantile(self, u: Floats) -> Floats:
        """Return exp(μ + σ Φ⁻¹(u)) [tokens]."""
        from scipy.special import ndtri

        return self.mean * np.exp(self._sigma * ndtri(u) - self._sigma**2 / 2)

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return conditional means in closed form: mean·[Φ(z−σ)] between the edges of each bin."""
        from scipy.special import ndtr, ndtri

        edges = np.sin(np.pi * np.arange(count + 1) / (2 * count)) ** 2
        weights = np.diff(edges)
        mass = np.diff(ndtr(ndtri(edges) - self._sigma))
        return np.maximum(self.mean * mass / weights, 1.0), weights

    @property
    def mean_tokens(self) -> float:
        """Mean length [tokens]."""
        return self.mean

    @property
    def scv(self) -> float:
        """Squared coefficient of variation [1]."""
        return self.cv**2


class Geometric(_Law):
    """Geometric on 1, 2, …: each token is the last with probability 1/mean."""

    EXAMPLE = "geometric:300 (mean)"
    kind: Literal["geometric"] = "geometric"
    mean: float = Field(gt=1, le=MOST_TOKENS)

    def __init__(self, mean: float | None = None, /, **values: Any) -> None:
        super().__init__(**_positional("mean", mean, values))

    def quantile(self, u: Floats) -> Floats:
        """Return ⌈log(1−u)/log(1−1/mean)⌉ [tokens]."""
        steps = np.log1p(-np.asarray(u)) / math.log1p(-1 / self.mean)
        return np.maximum(np.ceil(steps), 1.0)

    @property
    def mean_tokens(self) -> float:
        """Mean length [tokens]."""
        return self.mean

    @property
    def scv(self) -> float:
        """Squared coefficient of variation [1]."""
        return 1.0 - 1.0 / self.mean


class Empirical(_Law):
    """Lengths drawn from a list of observed ones, equally likely."""

    kind: Literal["empirical"] = "empirical"
    values: tuple[int, ...] = Field(min_length=1, max_length=10_000_000)

    def __init__(self, values: Any = None, /, **rest: Any) -> None:
        super().__init__(**_positional("values", values, rest))

    @model_validator(mode="after")
    def _positive(self) -> Empirical:
        if min(self.values) < 1 or max(self.values) > MOST_TOKENS:
            raise ValueError(f"lengths must be from 1 to {MOST_TOKENS:,} tokens")
        return self

    def quantile(self, u: Floats) -> Floats:
        """Return the observed length of rank ⌈u·n⌉ [tokens]."""
        ordered = np.sort(np.asarray(self.values, dtype=np.float64))
        rank = np.ceil(np.asarray(u) * ordered.size).astype(int) - 1
        return ordered[np.clip(rank, 0, ordered.size - 1)]

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return distinct values with their shares, or the means of quantile bins if many."""
        values, counts = np.unique(np.asarray(self.values, dtype=np.float64), return_counts=True)
        if values.size <= count:
            return values, counts / counts.sum()
        ordered = np.sort(np.asarray(self.values, dtype=np.float64))
        edges = np.sin(np.pi * np.arange(count + 1) / (2 * count)) ** 2
        cuts = np.unique(np.round(edges * ordered.size).astype(int))
        sums = np.add.reduceat(ordered, cuts[:-1])
        sizes = np.diff(cuts)
        return sums / sizes, sizes / ordered.size

    @property
    def mean_tokens(self) -> float:
        """Mean length [tokens]."""
        return float(np.mean(self.values))

    @property
    def scv(self) -> float:
        """Squared coefficient of variation [1]."""
        return float(np.var(self.values) / np.mean(self.values) ** 2)


def _positional(name: str, value: Any, values: dict[str, Any]) -> dict[str, Any]:
    return values if value is None else {name: value, **values}


_LAWS: dict[str, type[_Law]] = {
    "fixed": Fixed,
    "uniform": Uniform,
    "lognormal": LogNormal,
    "geometric": Geometric,
}
_CALL = re.compile(r"\s*([a-z]+)\s*(?:\(([^()]*)\)|:([^():]*))\s*", re.IGNORECASE)


def parse_law(text: object) -> object:
    """Read 512, "512", "lognormal(2000, cv=0.8)", "lognormal:2000,0.8", "uniform(100, 200)", ….

    Objects that are laws, or dictionaries with `kind`, pass through. Raises InputError.
    """
    if isinstance(text, bool):
        raise InputError(f"length {text} is not a number of tokens")
    if isinstance(text, int | float) or (isinstance(text, str) and _is_number(text)):
        value = _number(text)
        if not (1 <= value <= MOST_TOKENS and value.is_integer()):
            raise InputError(
                f"length {shown(text)} is not a whole number of tokens from 1 to {MOST_TOKENS:,}"
            )
        return Fixed(int(value))
    if not isinstance(text, str):
        return text
    match = _CALL.fullmatch(text) if len(text) <= LONGEST_LAW else None
    law = _LAWS.get(match.group(1).lower()) if match else None
    if match is None or law is None:
        raise InputError(
            f"length law {text[:60]!r} is not understood; write 512, lognormal(2000, cv=0.8), "
            "uniform(100, 200), geometric(300)"
        )
    names = [n for n in law.model_fields if n != "kind"]
    values: dict[str, float] = {}
    inside = match.group(2) if match.group(2) is not None else match.group(3)
    for position, part in enumerate(p for p in inside.split(",") if p.strip()):
        key, _, number = part.rpartition("=")
        name = key.strip() or (names[position] if position < len(names) else "")
        if name not in names or not _is_number(number):
            raise InputError(
                f"length law {text[:60]!r}: {part.strip()[:60]!r} is not one of {names}"
            )
        values[name] = float(number)
    missing = [name for name in names if name not in values]
    if missing:
        raise InputError(
            f"length law {text[:60]!r} lacks its {' and '.join(missing)}; write {law.EXAMPLE}"
        )
    return law(**values)


def _number(value: float | str) -> float:
    """Return the number; infinity for whole numbers that have no float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


LengthLaw = Annotated[
    Annotated[Fixed | Uniform | LogNormal | Geometric | Empirical, Field(discriminator="kind")],
    BeforeValidator(parse_law),
]
