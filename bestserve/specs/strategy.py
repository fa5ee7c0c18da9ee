"""Serving strategies: how they are written, printed and parsed."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, model_validator

from bestserve.errors import InputError
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Role
from bestserve.specs.base import Spec

ROLE_NAMES: dict[str, str] = {"m": "collocated", "p": "prefill", "d": "decode"}

_POOL = re.compile(r"(?P<heads>(?:\d+[mpd])+)(?P<options>(?:-[a-z]+\d+)*)", re.ASCII)
_OPTIONS = {
    "tp": "tp",
    "pp": "pp",
    "dp": "dp",
    "ep": "ep",
    "seqs": "max_num_seqs",
    "tokens": "max_num_batched_tokens",
}


LONGEST = 200
"""Characters of a strategy as text."""


class Pool(Spec):
    """`replicas` equal instances with one role: m collocated, p prefill, d decode."""

    role: Role
    replicas: int = Field(ge=1, le=1_000_000)
    tp: int = Field(default=1, ge=1, le=1024)
    pp: int = Field(default=1, ge=1, le=1024)
    dp: int = Field(default=1, ge=1, le=1024)
    ep: int = Field(default=1, ge=1, le=1024)
    max_num_seqs: int | None = Field(default=None, ge=1, le=1_000_000)
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=10_000_000)

    @model_validator(mode="after")
    def _experts_fit(self) -> Pool:
        if self.ep not in (1, self.tp * self.dp):
            raise ValueError(f"ep = {self.ep} must be 1 or tp·dp = {self.tp * self.dp}")
        return self

    @classmethod
    def of(cls, role: Role, replicas: int, parallelism: Parallelism, **limits: int | None) -> Pool:
        """Return `replicas` instances split as `parallelism`; limits : max_num_… fields."""
        p = parallelism
        return cls(role=role, replicas=replicas, tp=p.tp, pp=p.pp, dp=p.dp, ep=p.ep, **limits)

    @property
    def parallelism(self) -> Parallelism:
        """How one instance is split over GPUs."""
        return Parallelism(tp=self.tp, pp=self.pp, dp=self.dp, ep=self.ep)

    @property
    def gpus(self) -> int:
        """GPUs of the whole pool."""
        return self.replicas * self.parallelism.gpus

    @property
    def options(self) -> str:
        """The part after the replica counts: "-tp4-pp2-…"; what is default is left out."""
        parts = [f"-tp{self.tp}"]
        parts += [f"-{k}{getattr(self, k)}" for k in ("pp", "dp", "ep") if getattr(self, k) > 1]
        parts += [f"-seqs{self.max_num_seqs}"] if self.max_num_seqs else []
        parts += [f"-tokens{self.max_num_batched_tokens}"] if self.max_num_batched_tokens else []
        return "".join(parts)


class Strategy(Spec):
    """Collocated replicas, or prefill and decode pools; prints and parses.

    >>> Strategy.parse("3p2d-tp4").gpus
    20
    >>> str(Strategy.parse("3p-tp2+2d-tp4"))
    '3p-tp2+2d-tp4'
    """

    pools: tuple[Pool, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _roles(self) -> Strategy:
        roles = tuple(p.role for p in self.pools)
        if roles not in (("m",), ("p", "d")):
            raise ValueError(
                f"roles {'+'.join(roles)} make no strategy: one collocated pool (2m-tp4) or "
                "a prefill and a decode pool (3p2d-tp4, 3p-tp2+2d-tp4)"
            )
        return self

    @classmethod
    def parse(cls, text: str | Strategy) -> Strategy:
        """Read "2m-tp4", "3p2d-tp4" or "3p-tp2+2d-tp4". Raises InputError.

        Options after the counts: -tpN -ppN -dpN -epN -seqsN (max_num_seqs) and
        -tokensN (max_num_batched_tokens).
        """
        if isinstance(text, Strategy):
            return text
        if len(text) > LONGEST:
            raise InputError(
                f"strategy of more than {LONGEST} characters; write 2m-tp4 or 3p2d-tp4"
            )
        pools: list[Pool] = []
        for part in text.strip().lower().split("+"):
            match = _POOL.fullmatch(part)
            if match is None:
                raise InputError(
                    f"strategy {text[:60]!r} is not understood at {part[:40]!r}; "
                    "write 2m-tp4, 2m-tp8-pp2, 1m-tp8-dp2-ep16, 3p2d-tp4 or 3p-tp2+2d-tp4"
                )
            options = _parse_options(text, match.group("options"))
            for count, role in re.findall(r"(\d+)([mpd])", match.group("heads")):
                pools.append(Pool(role=role, replicas=int(count), **options))
        return cls(pools=tuple(pools))

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode run on different instances."""
        return len(self.pools) == 2

    @property
    def gpus(self) -> int:
        """GPUs in all pools."""
        return sum(p.gpus for p in self.pools)

    def __str__(self) -> str:
        if self.disaggregated and self.pools[0].options == self.pools[1].options:
            counts = "".join(f"{p.replicas}{p.role}" for p in self.pools)
            return counts + self.pools[0].options
        return "+".join(f"{p.replicas}{p.role}{p.options}" for p in self.pools)


def _parse_options(text: str, options: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, number in re.findall(r"-([a-z]+)(\d+)", options):
        field = _OPTIONS.get(name)
        if field is None or field in values:
            why = "is given twice" if field else f"is none of {', '.join(_OPTIONS)}"
            raise InputError(f"strategy {text[:60]!r}: option -{name} {why}")
        values[field] = int(number)
    return values
