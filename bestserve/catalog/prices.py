"""What GPUs cost to rent: public prices with provider, date and source (`data/prices.toml`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import Field

from bestserve.catalog.folders import PACKAGE_DATA
from bestserve.readers.mappings import read_mapping
from bestserve.specs.base import Spec

PriceKind = Literal["on-demand", "spot"]


class Price(Spec):
    """One offer [USD per GPU and hour].

    hardware : name of the GPU's record; provider : who rents it, and as which machine
    date : when it was read (YYYY-MM-DD); source : where
    """

    hardware: str
    usd_per_hour: float = Field(gt=0, le=1000)
    kind: PriceKind = "on-demand"
    provider: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    source: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.usd_per_hour:.4g} $ per GPU-hour, {self.provider}, {self.kind}, {self.date}"


@lru_cache(maxsize=1)
def prices() -> tuple[Price, ...]:
    """Return all offers, by GPU and kind, cheapest first."""
    tables = read_mapping(PACKAGE_DATA / "prices.toml", "prices", "toml")
    sources = tables["sources"]
    offers = [Price(**{**entry, "source": sources[entry["source"]]}) for entry in tables["price"]]
    return tuple(sorted(offers, key=lambda p: (p.hardware, p.kind, p.usd_per_hour)))


def price_of(hardware: str, kind: PriceKind = "on-demand") -> Price | None:
    """Return the median offer of a GPU (the lower of two), None where there is none."""
    offers = [p for p in prices() if (p.hardware, p.kind) == (hardware, kind)]
    return offers[(len(offers) - 1) // 2] if offers else None
