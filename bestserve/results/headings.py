"""How columns are headed: the words of the nomenclature with their units, shares in per cent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADINGS = {
    "goodput": "goodput [req/s]",
    "goodput_low": "goodput low [req/s]",
    "goodput_high": "goodput high [req/s]",
    "simulated_goodput": "simulated goodput [req/s]",
    "goodput_per_gpu": "per GPU [req/s]",
    "request_rate": "request rate [req/s]",
    "rate": "rate [req/s]",
    "tokens_per_second": "tokens [1/s]",
    "output_per_gpu": "output per GPU [tokens/s]",
    "output_per_user": "output per user [tokens/s]",
    "usd_per_hour": "cost [$/h]",
    "usd_per_million_tokens": "$/M tokens",
    "usd_per_million_input": "$/M input",
    "usd_per_million_output": "$/M output",
    "joules_per_token": "J/token",
    "budget": "budget [$/h]",
    "wanted_rate": "wanted rate [req/s]",
    "goodput_without_hits": "without hits [req/s]",
    "worth": "worth [req/s]",
    "offloading_gb": "host memory [GB]",
    "former_best": "former best [req/s]",
}
"""Columns whose unit is not in their name."""

SHARES = frozenset(
    {"utilisation", "attainment", "headroom", "load", "gap", "probability", "first", "total"}
    | {"hit_share", "hit_share_needed", "hit_share_found"}
    | {"gain", "first_low", "first_high", "prefix_cache_hit"}
    | {"ttft_met", "tpot_met", "e2el_met", "all_met", "carried", "worst_window"}
)
"""Columns that are shares, which people read in per cent."""

DERIVED = (
    "joules_per_token",
    "usd_per_million_input",
    "usd_per_million_output",
    "output_per_user",
    "output_per_gpu",
    "tokens_per_second",
    "usd_per_hour",
    "method",
    "goodput_per_gpu",
    "utilisation",
    "usd_per_million_tokens",
    "tpot_ms",
    "ttft_ms",
)
"""Columns that go first where a terminal is narrow, in this order."""


KEPT = ("strategy", "goodput", "binding", "trust", "confirmed")
"""Columns that go last of all."""


def heading(name: str) -> str:
    """Return what stands above a column.

    >>> heading("ttft_p90_ms"), heading("goodput"), heading("utilisation")
    ('TTFT p90 [ms]', 'goodput [req/s]', 'utilisation [%]')
    """
    if name in HEADINGS:
        return HEADINGS[name]
    if name in SHARES:
        return f"{name.replace('_', ' ')} [%]"
    stem = name.removesuffix("_ms").removesuffix("_percent")
    unit = " [ms]" if name.endswith("_ms") else " [%]" if name.endswith("_percent") else ""
    words = [w.upper() if w in ("ttft", "tpot", "e2el") else w for w in stem.split("_")]
    return f"{' '.join(words)}{unit}".replace("gpus", "GPUs").replace("gpu ", "GPU ")


def shown(name: str, value: Any) -> Any:
    """Return a value as a table has it: shares in per cent, yes and no in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "binding" and isinstance(value, str):
        return value.partition(":")[0]
    if name in SHARES and isinstance(value, int | float):
        return 100.0 * value
    return value


def derived(names: Sequence[str]) -> bool:
    """Whether some of the columns follow from others, and may go where a terminal is narrow."""
    return any(name in DERIVED for name in names)


def fewer(names: Sequence[str]) -> list[str]:
    """Return the columns without the one that matters least."""
    least = [n for n in DERIVED if n in names] or [n for n in names[:0:-1] if n not in KEPT]
    gone = least[0] if least else names[-1]
    return [n for n in names if n != gone]
