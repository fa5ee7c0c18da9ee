"""Laws of input and output lengths: closed-form moments, quantiles, and mean-exact atoms."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from bestserve.arrays import Floats
from bestserve.errors import InputError, shown
from bestserve.specs.base import Spec

MOST_TOKENS = 100_000_000
"""Longest length [tokens]; ten times the longest context that any model takes."""
LONGEST_LAW = 200
"""Characters of a law as text."""
ATOMS = 96
"""Atoms a continuous law is cut into, two a bin."""

MOST_LISTED = 5000.0
"""Mean of a geometric law up to which its lengths are listed; longer ones are as good as real."""

END = 40.0
"""Means of a geometric law beyond which no length is: one in e^40."""


def two_a_bin(weights: Floats, powers: Floats, mean: float) -> tuple[Floats, Floats]:
    """Return two atoms a bin of a law with its first three moments (Gauss), none below 1 token.

    weights : shares of the bins [b]; powers : E[lⁱ | bin], i = 1, 2, 3 [3, b]; mean : of the law
    [tokens]. What is lifted to 1 token is taken from the others, so that the mean stays.

    >>> lengths, shares = two_a_bin(np.ones(1), np.array([[10.0], [200.0], [6000.0]]), 10.0)
    >>> [round(float(shares @ lengths**i)) for i in (1, 2, 3)]  # of an exponential law
    [10, 200, 6000]
    """
    m = powers[0]
    variance = np.maximum(powers[1] - m**2, 0.0)
    spread = np.sqrt(variance)
    third = powers[2] - 3 * m * powers[1] + 2 * m**3
    wide = spread > 1e-4 * m
    skew = np.where(wide, third, 0.0) / np.where(wide, spread, 1.0) ** 3
    half = np.sqrt(1.0 + skew**2 / 4)
    share = 0.5 - skew / (4 * half)
    lengths = np.concatenate((m + spread * (skew / 2 - half), m + spread * (skew / 2 + half)))
    shares = np.concatenate((weights * (1 - share), weights * share))
    lengths = np.maximum(lengths, 1.0)
    lifted = float(shares @ lengths)
    if lifted > mean:
        lengths = 1.0 + (lengths - 1.0) * ((mean - 1.0) / (lifted - 1.0))
    order = np.argsort(lengths)
    return lengths[order], shares[order]


def _bin_edges(count: int) -> Floats:
    """Return the probabilities between `count` bins, narrow in both tails [count + 1]."""
    return np.asarray(np.sin(np.pi * np.arange(count + 1) / (2 * count)) ** 2)


def _grouped(values: Floats, shares: Floats, count: int) -> tuple[Floats, Floats]:
    """Return at most `count` atoms of ascending weighted values, their three moments kept."""
    group = np.searchsorted(_bin_edges(count // 2)[1:-1], np.cumsum(shares) - shares / 2)
    weights = np.asarray(np.bincount(group, shares), dtype=np.float64)
    some = weights > 0
    powers = np.stack([np.bincount(group, shares * values**i)[some] for i in (1, 2, 3)])
    weights = weights[some]
    return two_a_bin(weights, powers / weights, float(shares @ values))


class _Law(Spec):
    EXAMPLE: ClassVar[str] = ""
    """How the law is written on a command line."""

    def quantile(self, u: Floats) -> Floats:
        """Return the lengths at probabilities `u` in (0, 1) [tokens]."""
        raise NotImplementedError

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return (lengths, weights) whose first three moments are the law's: two in a quantile bin.

        Bin edges are sin²-spaced, fine in both tails, where percentiles and E[l²] are made.
        """
        edges = _bin_edges(count // 2)
        inner = (np.arange(64) + 0.5) / 64
        u = edges[:-1, None] + np.diff(edges)[:, None] * inner
        sizes = self.quantile(np.clip(u, 1e-12, 1 - 1e-12))
        sizes = sizes * (self.mean_tokens / float(sizes.mean(axis=1) @ np.diff(edges)))
        powers = np.stack([(sizes**i).mean(axis=1) for i in (1, 2, 3)])
        return two_a_bin(np.diff(edges), powers, self.mean_tokens)

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
        from bestserve.models.special import normal_quantile

        return self.mean * np.exp(self._sigma * normal_quantile(u) - self._sigma**2 / 2)

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return two atoms a bin, from E[lⁱ; bin] = meanⁱ e^{i(i−1)σ²/2} [Φ(z − iσ)]."""
        from bestserve.models.special import normal_cdf, normal_quantile

        edges, s = _bin_edges(count // 2), self._sigma
        weights, z = np.diff(edges), normal_quantile(edges)
        # from the side where the distribution function is small, or its differences are rounding
        mass = [
            np.where(
                z[:-1] < i * s, np.diff(normal_cdf(z - i * s)), -np.diff(normal_cdf(i * s - z))
            )
            * (self.mean**i * math.exp(i * (i - 1) * s * s / 2))
            for i in (1, 2, 3)
        ]
        return two_a_bin(weights, np.stack(mass) / weights, self.mean)

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

    def atoms(self, count: int = ATOMS) -> tuple[Floats, Floats]:
        """Return every length if there are few, else two atoms a quantile bin."""
        if self.mean > MOST_LISTED:
            return super().atoms(count)
        lengths = np.arange(1.0, math.ceil(END * self.mean) + 1)
        shares = (1 - 1 / self.mean) ** (lengths - 1) / self.mean
        return _grouped(lengths, shares / shares.sum(), count)

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
        return _grouped(ordered, np.full(ordered.size, 1 / ordered.size), count)

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
