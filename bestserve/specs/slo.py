"""Latency objectives, read as vLLM writes them, and those on single tokens beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from bestserve.errors import InputError
from bestserve.models.system import Target, Tier
from bestserve.models.token_target import TOKEN_OBJECTIVES, TokenTarget
from bestserve.specs.base import Spec
from bestserve.units import Name, PositiveSeconds, parse_duration

LEAST = 1e-3
"""Objectives below it without a unit are taken for seconds written by mistake [s]."""

MOST = {
    "ttft": 100.0, "tpot": 5.0, "e2el": 1000.0, "deadline": 5.0, "deadline_first": 100.0,
    "slack": 100.0, "stall": 100.0, "itl": 100.0, "pace": 5.0, "e2el_per_token": 5.0,
}  # fmt: skip
"""Numbers in a table from which on they are taken for milliseconds written by mistake [s]."""

LONGEST = 400
"""Characters of objectives as text."""

METRICS = ("ttft", "tpot", "e2el")
"""Latencies whose percentile may have a threshold."""

OBJECTIVES = (*METRICS, *TOKEN_OBJECTIVES)
HELPERS = ("slack", "pace")
SHARES = ("percentile", "joint", "attainment")
TIMES = (*METRICS, "deadline", "deadline_first", "e2el_per_token", "slack", "stall", "itl", "pace")
TWO_PARTS = {"e2el": ("e2el", "e2el_per_token"), "deadline": ("deadline_first", "deadline")}
"""Objectives that may be written as a sum: a time, and so much more per token."""

_ITEM = re.compile(
    r"(?:([\w-]+)\.)?([a-z0-9]+)\s*[:=]\s*([^@\s]+)(?:@p?([0-9]+(?:\.[0-9]*)?))?", re.IGNORECASE
)
_SUM = re.compile(r"(?<![eE])\+")


class SLO(Spec):
    """Objectives on TTFT, TPOT, E2EL and single tokens, with the share of requests to meet them.

    Marginal (default, the paper's sense): each named latency's own percentile must meet its
    threshold. Joint (DistServe's and vLLM's sense): `attainment` of the requests must meet all
    of them at once.

    ttft, tpot, e2el : thresholds [s]; e2el_per_token : by so much the E2EL threshold grows with
        every output token after the first [s]
    deadline : token i is due i · `deadline` after the first one's deadline, which is
        `deadline_first`, or else `ttft`, from arrival [s]; slack : by how much tokens may be late
    stall : time that a reader may wait in all after the first token [s]: deadlines that count from
        the first token, with that slack
    fluidity : least share of deadlines met, where they begin anew with every late token [1]
    itl : longest gap between messages [s]; its percentile is over all gaps, and where objectives
        are joint, of a request over its own: all of them unless stated
    pace : time that a reader takes per token, for `stall` and `fluidity` [s]; default: `deadline`,
        or else `tpot`

    tiers : further objectives of single classes of the workload, by their name; they take
        percentile, joint and attainment from here unless they state their own

    >>> SLO("ttft:1000 tpot:50", percentile=90).ttft
    1.0
    >>> str(SLO("ttft:0.5s@p99 tpot:50"))
    'P99 TTFT ≤ 500 ms, P90 TPOT ≤ 50 ms'
    >>> str(SLO("deadline:1000+50 itl:200@p99"))
    '90 % of requests with token i by 1000 + i · 50 ms, 99 % of gaps ≤ 200 ms'
    """

    ttft: PositiveSeconds | None = None
    tpot: PositiveSeconds | None = None
    e2el: PositiveSeconds | None = None
    percentile: float = Field(default=90.0, gt=0, lt=100)
    ttft_percentile: float | None = Field(default=None, gt=0, lt=100)
    tpot_percentile: float | None = Field(default=None, gt=0, lt=100)
    e2el_percentile: float | None = Field(default=None, gt=0, lt=100)
    joint: bool = False
    attainment: float = Field(default=0.9, gt=0, lt=1)
    e2el_per_token: PositiveSeconds | None = None
    deadline: PositiveSeconds | None = None
    deadline_first: PositiveSeconds | None = None
    slack: PositiveSeconds | None = None
    stall: PositiveSeconds | None = None
    fluidity: float | None = Field(default=None, gt=0, le=1)
    itl: PositiveSeconds | None = None
    pace: PositiveSeconds | None = None
    deadline_percentile: float | None = Field(default=None, gt=0, lt=100)
    stall_percentile: float | None = Field(default=None, gt=0, lt=100)
    fluidity_percentile: float | None = Field(default=None, gt=0, lt=100)
    itl_percentile: float | None = Field(default=None, gt=0, lt=100)
    tiers: dict[Name, SLO] = Field(default_factory=dict, max_length=1000)

    @field_validator("tiers", mode="before")
    @classmethod
    def _tier_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: SLO(one) if isinstance(one, str) else one for name, one in value.items()}

    def __init__(self, text: str | None = None, /, **values: Any) -> None:
        super().__init__(**{**(parse_slo(text) if text is not None else {}), **values})

    @field_validator(*TIMES, mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip()[-1:] in ("", *"0123456789."):
            raise ValueError("names no unit; write it like 500ms, or a number of seconds")
        return parse_duration(value)

    @model_validator(mode="after")
    def _something(self) -> SLO:
        if all(getattr(self, name) is None for name in OBJECTIVES) and not self.tiers:
            raise ValueError("no objective given; write for example ttft:500 tpot:50 (ms)")
        if self.e2el_per_token is not None and self.e2el is None:
            raise ValueError("e2el_per_token goes with e2el; write e2el:1000+50")
        if self.deadline is None and (self.slack or self.deadline_first):
            raise ValueError("slack and deadline_first go with a deadline; write deadline:1000+50")
        if self.deadline is not None and self.first is None:
            raise ValueError(
                "a deadline per token counts from when the first one is due; give ttft, or write "
                "deadline:1000+50 (ms, and ms per token)"
            )
        if self.pace and self.deadline and self.pace != self.deadline:
            raise ValueError(
                "pace and deadline are both the time that a reader takes per token: give one"
            )
        if self.pace and not (self.stall or self.fluidity or self.deadline):
            raise ValueError("pace goes with stall or fluidity; write stall:200 pace:50")
        if (self.stall or self.fluidity) and self.reading_pace is None:
            raise ValueError(
                "stall and fluidity depend on how fast is read; give pace:50 (ms per token), a "
                "deadline or tpot"
            )
        return self

    @property
    def first(self) -> float | None:
        """When the first token is due, from arrival [s]."""
        return self.deadline_first or self.ttft

    @property
    def reading_pace(self) -> float | None:
        """Time that a reader takes per token [s]."""
        return self.pace or self.deadline or self.tpot

    def percentile_of(self, metric: str) -> float:
        """Return the percentile of a metric [%]."""
        own: float | None = getattr(self, f"{metric}_percentile")
        return self.percentile if own is None else own

    def target(self) -> Target:
        """Return the objectives as the models take them."""
        return Target(
            ttft=self.ttft,
            tpot=self.tpot,
            e2el=self.e2el,
            ttft_percentile=self.percentile_of("ttft") / 100,
            tpot_percentile=self.percentile_of("tpot") / 100,
            e2el_percentile=self.percentile_of("e2el") / 100,
            joint=self.joint,
            attainment=self.attainment,
            e2el_per_token=self.e2el_per_token or 0.0,
            tokens=self.token_target(),
            tiers=tuple(
                Tier(name=name, target=self._inherited(tier).target())
                for name, tier in self.tiers.items()
            ),
        )

    def _inherited(self, tier: SLO) -> SLO:
        """Return a class's objectives with the shares of all where it states none."""
        own = {name: getattr(self, name) for name in SHARES if name not in tier.model_fields_set}
        return tier.model_copy(update=own)

    def token_target(self) -> TokenTarget | None:
        """Return the objectives on single tokens, if there are any."""
        if all(getattr(self, name) is None for name in TOKEN_OBJECTIVES):
            return None
        own = None if self.itl_percentile is None else self.itl_percentile / 100
        return TokenTarget(
            pace=self.deadline or self.reading_pace or 0.0,
            first=self.first,
            slack=None if self.deadline is None else self.slack or 0.0,
            stall=self.stall,
            fluidity=self.fluidity,
            itl=self.itl,
            deadline_share=self.percentile_of("deadline") / 100,
            stall_share=self.percentile_of("stall") / 100,
            fluidity_share=self.percentile_of("fluidity") / 100,
            itl_share=self.percentile_of("itl") / 100,
            own_gaps=1.0 if own is None else own,
        )

    def __str__(self) -> str:
        wanted = [m for m in METRICS if getattr(self, m) is not None]
        tokens = [m for m in TOKEN_OBJECTIVES if getattr(self, m) is not None]
        said = [f"P{self.percentile_of(m):.6g} {self._limit(m)}" for m in wanted]
        said += [f"{self.percentile_of(m):.6g} % of {self._whose(m)}" for m in tokens]
        if self.joint and said:
            inner = ", ".join([*map(self._limit, wanted), *map(self._of_tokens, tokens)])
            said = [f"{self.attainment:.4g} of requests with {inner}"]
        said += [f"{name}: {self._inherited(tier)}" for name, tier in self.tiers.items()]
        return ", ".join(said)

    def _limit(self, metric: str) -> str:
        """Return a latency and its threshold in words."""
        more = f" + {self.e2el_per_token * 1e3:.6g} ms a token" if self.e2el_per_token else ""
        said = f"{metric.upper()} ≤ {getattr(self, metric) * 1e3:.6g} ms"
        return said + (more if metric == "e2el" else "")

    def _whose(self, metric: str) -> str:
        """Return an objective on tokens with those whose share must meet it, in words."""
        if metric == "itl":
            return f"gaps ≤ {(self.itl or 0.0) * 1e3:.6g} ms"
        return f"requests with {self._of_tokens(metric)}"

    def _of_tokens(self, metric: str) -> str:
        """Return an objective on the tokens of a request in words."""
        paced = f"at {(self.reading_pace or 0.0) * 1e3:.6g} ms a token"
        if metric == "deadline":
            late = f" (+ {self.slack * 1e3:.6g})" if self.slack else ""
            first, each = (self.first or 0.0) * 1e3, (self.deadline or 0.0) * 1e3
            return f"token i by {first:.6g}{late} + i · {each:.6g} ms"
        if metric == "stall":
            return f"a wait ≤ {(self.stall or 0.0) * 1e3:.6g} ms in all {paced}"
        if metric == "fluidity":
            return f"fluidity ≥ {self.fluidity:.4g} {paced}"
        share = "all" if self.itl_percentile is None else f"{self.itl_percentile:.6g} %"
        return f"{share} of its gaps ≤ {(self.itl or 0.0) * 1e3:.6g} ms"


def checked_table(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return objectives as a file's table has them: numbers in seconds, or text with its unit.

    Raises InputError for numbers so large that they can only be milliseconds.
    """
    for metric, most in MOST.items():
        value = values.get(metric)
        if isinstance(value, int | float) and value >= most:
            given = f"{min(value, 1e300):g}"
            raise InputError(
                f'objective {metric} = {given} would be seconds; write {metric} = "{given}ms" '
                f'if you mean milliseconds, "{given}s" if not'
            )
    return dict(values)


def parse_slo(text: str) -> dict[str, Any]:
    """Read "ttft:500 tpot:50" (ms), with units ("ttft:0.5s") and percentiles ("ttft:500@p99").

    E2EL and token deadlines may grow with the length: "e2el:1000+50", "deadline:1000+50". Those of
    one class follow its name: "chat.tpot:50".
    """
    if len(text) > LONGEST:
        raise InputError(f"objectives of more than {LONGEST} characters; write ttft:500 tpot:50")
    found: dict[str, Any] = {}
    tiers: dict[str, dict[str, Any]] = {}
    for part in re.sub(r"\s*([:=])\s*", r"\1", text.replace(",", " ")).split():
        match = _ITEM.fullmatch(part)
        metric = match.group(2).lower() if match else ""
        if match is None or metric not in (*OBJECTIVES, *HELPERS):
            raise InputError(
                f"objective {part[:60]!r} is not understood; write ttft:500 tpot:50 e2el:30s "
                "(ms unless a unit is given), or on tokens deadline:1000+50, stall:200, pace:50, "
                "fluidity:0.9, itl:100@p99"
            )
        tier = match.group(1)
        values = found if tier is None else tiers.setdefault(tier, {})
        if metric in values:
            raise InputError(f"objective {metric} is given twice in {text[:80]!r}")
        values |= _read(metric, match.group(3), part[:60])
        if match.group(4):
            if metric in HELPERS:
                raise InputError(f"{metric} is no objective, so it has no percentile")
            values[f"{metric}_percentile"] = float(match.group(4))
    if tiers:
        found["tiers"] = {name: SLO(**values) for name, values in tiers.items()}
    return found


def _read(metric: str, text: str, part: str) -> dict[str, float]:
    """Return the fields of one objective; part : as it is named in errors."""
    if metric == "fluidity":
        try:
            return {metric: float(text)}
        except ValueError:
            raise InputError(f"objective {part!r}: write a share, such as fluidity:0.9") from None
    terms = _SUM.split(text)
    names: tuple[str, ...] = (metric,)
    if metric in TWO_PARTS and len(terms) == 2:
        names = TWO_PARTS[metric]
    elif len(terms) > 1:
        raise InputError(
            f"objective {part!r} is not understood; e2el and deadline may be sums of two, a time "
            "and one per token: deadline:1000+50"
        )
    found = {name: parse_duration(term) for name, term in zip(names, terms, strict=True)}
    for value, term in zip(found.values(), terms, strict=True):
        if value < LEAST and term[-1] in "0123456789.":
            raise InputError(
                f"objective {part!r} is below a millisecond; write {term}s if you mean seconds, "
                f"{term}ms if not"
            )
    return found
