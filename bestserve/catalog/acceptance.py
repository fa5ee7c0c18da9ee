"""How many drafts are accepted: measured data sets and defaults (`data/acceptance.toml`)."""

from __future__ import annotations

from functools import lru_cache

from pydantic import Field

from bestserve.catalog.folders import PACKAGE_DATA
from bestserve.errors import UnknownNameError
from bestserve.readers.mappings import read_mapping
from bestserve.specs.base import Spec
from bestserve.specs.figure import FigureKind
from bestserve.specs.speculation import Chance, Method, SpeculativeConfig


class Acceptance(Spec):
    """How many drafts of a method are accepted.

    chances : of the first, second, … draft if all before it are accepted; the last holds for all
        that follow [1]
    low, high : bounds of the first where it is assumed [1]
    spread : coefficient of variation, between requests, of decode steps per token with `spread_at`
        drafts [1]
    by_length : whether long answers are accepted otherwise than short ones
    """

    method: Method
    dataset: str = ""
    chances: tuple[Chance, ...] = Field(min_length=1)
    low: Chance | None = None
    high: Chance | None = None
    spread: float = Field(ge=0, le=1)
    spread_at: int = Field(ge=1)
    by_length: bool = False
    kind: FigureKind
    source: str

    def positions(self, count: int) -> tuple[float, ...]:
        """Return the chances of the first `count` drafts, at least as many as are known [1]."""
        return self.chances + self.chances[-1:] * (count - len(self.chances))


@lru_cache(maxsize=1)
def _records() -> tuple[Acceptance, ...]:
    tables = read_mapping(PACKAGE_DATA / "acceptance.toml", "acceptance", "toml")
    sources = tables["sources"]
    entries = [*tables["default"], *tables["measured"]]
    return tuple(Acceptance(**{**entry, "source": sources[entry["source"]]}) for entry in entries)


def default_acceptance(method: Method) -> Acceptance:
    """Return what is assumed of a method whose acceptance nobody states."""
    return next(r for r in _records() if r.method == method and not r.dataset)


def measured_acceptance(method: Method, dataset: str) -> Acceptance:
    """Return what a method reaches on a data set. Raises UnknownNameError."""
    known = {r.dataset: r for r in _records() if r.method == method and r.dataset}
    if dataset not in known:
        raise UnknownNameError(
            f"acceptance of {method} on data set", dataset, known, f"known: {', '.join(known)}"
        )
    return known[dataset]


def acceptance_of(config: SpeculativeConfig) -> Acceptance:
    """Return what a configuration states of its acceptance, or what is known or assumed of it.

    >>> acceptance_of(SpeculativeConfig(method="eagle3", acceptance=0.6)).positions(3)
    (0.6, 0.6, 0.6)
    """
    stated, known = config.acceptance, default_acceptance(config.method)
    if isinstance(stated, str):
        known = measured_acceptance(config.method, stated)
    elif stated is not None:
        chances = (stated,) if isinstance(stated, float) else stated
        known = Acceptance(
            method=config.method,
            chances=chances,
            spread=known.spread,
            spread_at=known.spread_at,
            kind="datasheet",
            source="stated",
        )
    if config.acceptance_spread is None:
        return known
    at = config.num_speculative_tokens or known.spread_at
    return known.model_copy(update={"spread": config.acceptance_spread, "spread_at": at})
