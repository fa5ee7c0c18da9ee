"""Serving strategies: how they are written, printed and parsed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bestserve.errors import InputError
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Role
from bestserve.specs.base import Spec

Layout = Literal["collocated", "disaggregated", "hybrid"]

ROLE_NAMES: dict[str, str] = {"m": "collocated", "p": "prefill", "d": "decode"}

TABLE: Literal["table"] = "table"
"""In place of a number of drafts: the best one for each number of decodes."""

Drafts = Annotated[int, Field(ge=0, le=32)] | Literal["table"] | None

_POOL = re.compile(r"(?P<heads>(?:\d+[mpd])+)(?P<options>(?:-[a-z]+\d*)*)", re.ASCII)
_OPTIONS = {
    "tp": "tp",
    "pp": "pp",
    "dp": "dp",
    "ep": "ep",
    "seqs": "max_num_seqs",
    "tokens": "max_num_batched_tokens",
    "spec": "drafts",
}

_BOTH: dict[Role, dict[str, str]] = {
    "m": {},
    "p": {"decode": "local_percent"},
    "d": {
        "prefill": "local_percent",
        "upto": "longest_local",
        "queue": "prefill_queue",
        "flow": "flow_percent",
    },
}
"""Options of pools that do the other one's work, too, by role; "prefill" and "decode" need no
number."""


FLAGS = ("prefill", "decode")

LONGEST = 200
"""Characters of a strategy as text."""


class Pool(Spec):
    """`replicas` equal instances with one role: m collocated, p prefill, d decode.

    drafts : tokens speculated per decode and step, "table" the best number for each batch size;
        None: what the problem's `speculative_config` says, if it has one
    local : whether they do the other pool's work, too: decode instances process prompts, prefill
        instances decode; both only with `max_num_batched_tokens` of their own kind
    local_percent : of decode instances, the share of all prompts that they process (None: as the
        router finds, or in balance); of prefill instances, the share of their prompts whose answers
        they decode (None: all) [%]
    longest_local : tokens to compute of the longest prompt that decode instances process
    prefill_queue : requests at the prefill instances from which decode instances take any prompt
    flow_percent : share of a decode instance's KV cache beyond which decodes move to prefill
        instances [%]
    """

    role: Role
    replicas: int = Field(ge=1, le=1_000_000)
    tp: int = Field(default=1, ge=1, le=1024)
    pp: int = Field(default=1, ge=1, le=1024)
    dp: int = Field(default=1, ge=1, le=1024)
    ep: int = Field(default=1, ge=1, le=1024)
    max_num_seqs: int | None = Field(default=None, ge=1, le=1_000_000)
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    drafts: Drafts = None
    local: bool = False
    local_percent: int | None = Field(default=None, ge=0, le=100)
    longest_local: int | None = Field(default=None, ge=1, le=10_000_000)
    prefill_queue: int | None = Field(default=None, ge=1, le=1_000_000)
    flow_percent: int | None = Field(default=None, ge=1, le=99)

    @model_validator(mode="after")
    def _both_kinds(self) -> Pool:
        known = set(_BOTH[self.role].values())
        names = ("local_percent", "longest_local", "prefill_queue")
        for name in (*names, "flow_percent"):
            if getattr(self, name) is not None and name not in known:
                raise ValueError(f"{name} is nothing that instances of role {self.role} have")
        if self.local and not known:
            raise ValueError("collocated instances do all work: leave local out")
        if not self.local and any(getattr(self, name) is not None for name in names):
            raise ValueError(
                "prompts on decode instances are asked for with -prefill, decodes on prefill "
                "instances with -decode"
            )
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> Pool:
        if self.ep not in (1, self.tp * self.dp):
            raise ValueError(f"ep = {self.ep} must be 1 or tp·dp = {self.tp * self.dp}")
        return self

    @classmethod
    def of(cls, role: Role, replicas: int, parallelism: Parallelism, **limits: Any) -> Pool:
        """Return `replicas` instances split as `parallelism`; limits : max_num_… and drafts."""
        p = parallelism
        return cls(role=role, replicas=replicas, tp=p.tp, pp=p.pp, dp=p.dp, ep=p.ep, **limits)

    @property
    def parallelism(self) -> Parallelism:
        """How one instance is split over GPUs."""
        return Parallelism(tp=self.tp, pp=self.pp, dp=self.dp, ep=self.ep)

    @property
    def work(self) -> Role:
        """The role whose work its instances do: all of it where they do the other pool's, too."""
        return "m" if self.local else self.role

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
        parts += [f"-spec{self.drafts}"] if self.drafts is not None else []
        for name, field in _BOTH[self.role].items():
            value = getattr(self, field)
            if name in FLAGS and self.local:
                parts.append(f"-{name}{'' if value is None else value}")
            elif name not in FLAGS and value is not None:
                parts.append(f"-{name}{value}")
        return "".join(parts)


class Strategy(Spec):
    """Collocated replicas, prefill and decode pools, or a hybrid; prints and parses.

    >>> Strategy.parse("3p2d-tp4").gpus
    20
    >>> str(Strategy.parse("3p-tp2+2d-tp4"))
    '3p-tp2+2d-tp4'
    >>> hybrid = Strategy.parse("2p-tp4-tokens2048+2d-tp4-tokens256-prefill")
    >>> hybrid.layout, hybrid.pools[1].local
    ('hybrid', True)
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

        Options after the counts: -tpN -ppN -dpN -epN -seqsN (max_num_seqs), -tokensN
        (max_num_batched_tokens) and -specN (drafts per decode; -spectable: the best number for each
        batch size). Of hybrids, on decode pools -prefill (they process prompts, too; -prefillN: N %
        of them), -uptoN (prompts of up to N tokens), -queueN (any prompt once N requests are at the
        prefill instances) and -flowN (decodes leave above N % of the KV cache); on prefill pools
        -decode (they keep answers; -decodeN: N % of theirs).
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
            heads = re.findall(r"(\d+)([mpd])", match.group("heads"))
            options = _parse_options(text, match.group("options"), [role for _, role in heads])
            for count, role in heads:
                pools.append(Pool(role=role, replicas=int(count), **options[role]))
        return cls(pools=tuple(pools))

    @property
    def disaggregated(self) -> bool:
        """Whether there are prefill and decode instances, in hybrids too."""
        return len(self.pools) == 2

    @property
    def hybrid(self) -> bool:
        """Whether instances of one pool do the other's work, too."""
        return any(p.local or p.flow_percent for p in self.pools)

    @property
    def layout(self) -> Layout:
        """What kind of strategy this is."""
        if self.hybrid:
            return "hybrid"
        return "disaggregated" if self.disaggregated else "collocated"

    @property
    def gpus(self) -> int:
        """GPUs in all pools."""
        return sum(p.gpus for p in self.pools)

    def __str__(self) -> str:
        if self.disaggregated and self.pools[0].options == self.pools[1].options:
            counts = "".join(f"{p.replicas}{p.role}" for p in self.pools)
            return counts + self.pools[0].options
        return "+".join(f"{p.replicas}{p.role}{p.options}" for p in self.pools)


def _parse_options(text: str, options: str, roles: list[Role]) -> dict[Role, dict[str, Any]]:
    """Return the fields that options set in the pools of these roles."""
    values: dict[Role, dict[str, Any]] = {role: {} for role in roles}
    for name, number in re.findall(rf"-(spec(?={TABLE})|[a-z]+)({TABLE}|\d*)", options):
        found = {role: _OPTIONS.get(name) or _BOTH[role].get(name) for role in roles}
        fields = {role: field for role, field in found.items() if field is not None}
        if not fields or (not number and name not in FLAGS):
            known = [*_OPTIONS, *(n for role in roles for n in _BOTH[role])]
            why = "needs a number" if fields else f"is none of {', '.join(dict.fromkeys(known))}"
            raise InputError(f"strategy {text[:60]!r}: option -{name} {why}")
        for role, field in fields.items():
            given: dict[str, Any] = {"local": True} if name in FLAGS else {}
            if number:
                given[field] = number if number == TABLE else int(number)
            if given.keys() & values[role].keys():
                raise InputError(f"strategy {text[:60]!r}: option -{name} is given twice")
            values[role] |= given
    return values
