"""Which GPU somebody means: tokens of a spelling against tokens of the records.

Drivers, clouds, benchmark tables and people name the same board differently ("NVIDIA H100 80GB
HBM3", "H100-SXM5-80GB", "nvidia-h100-80gb"). A spelling names a record if every informative token
in it fits the record. If it fits several ("NVIDIA H100": SXM, PCIe or NVL) it names none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words that carry no information beyond the chip's own name.
_NOISE = frozenset(
    (
        *("nvidia", "amd", "huawei", "intel", "google", "cloud", "aws"),
        *("tesla", "geforce", "instinct"),
        *("gpu", "gpus", "npu", "npus", "accelerator", "tensor", "core", "card", "edition"),
        *("grace", "hopper", "ampere", "ada", "lovelace", "volta", "superchip", "generation"),
        *("each", "per", "die", "with", "the", "x", "form", "factor", "not", "stated", "ac"),
    )
)
_SAME = {
    "sxm2": "sxm",
    "sxm3": "sxm",
    "sxm4": "sxm",
    "sxm5": "sxm",
    "sxm6": "sxm",
    "pcie4": "pcie",
    "pcie5": "pcie",
}
_TWO_WORDS = {("4090", "d"), ("gaudi", "2"), ("gaudi", "3"), ("trainium", "1"), ("trainium", "2")}
# "rtx4090", "h100sxm5": names written without a blank.
_JOINED = re.compile(r"(rtx)(pro|a)?(\d{4})(ada|d)?|([a-z]{1,2}\d{2,4}[a-z]?)(sxm\d?|pcie\d?|nvl)")
_SLICE = re.compile(r"\bmig\b|(?<![a-z0-9])[1-7]g\.\d{1,3}gb", re.IGNORECASE)
_MEMORY = re.compile(r"(\d{1,4})(?:g|gb|gib)")
_COUNT_OR_POWER = re.compile(r"\d{1,3}x?|x\d{1,3}|\d{2,4}w")
_COUNT_IN_FRONT = re.compile(r"^\d{1,4}\s*[x×]\s*(?=[a-z])")
MEMORY_TOLERANCE = 0.06
"""Vendors, drivers and clouds state the same memory up to 6 % apart (GB, GiB, ECC, reserve)."""


@dataclass(frozen=True, slots=True)
class GpuTokens:
    """What a record answers to: its chip name (all needed) and other fitting tokens."""

    chip: frozenset[str]
    fitting: frozenset[str]
    gigabytes: tuple[float, ...]


def tokens(spelling: str) -> tuple[frozenset[str], tuple[int, ...]]:
    """Return (informative tokens, memory sizes in GB) of a spelling.

    >>> words, memory = tokens("8x NVIDIA H100-SXM5-80GB GPU")
    >>> sorted(words), memory
    (['h100', 'sxm'], (80,))
    """
    found = re.findall(r"[a-z0-9]+", _COUNT_IN_FRONT.sub("", spelling.lower().strip()))
    words = [part for word in found for part in _apart(word)]
    # "80 GB" and "4090 D" are one token each.
    joined: list[str] = []
    for word in words:
        if word in ("gb", "gib") and joined and joined[-1].isdigit():
            joined[-1] += "gb"
        elif joined and (joined[-1], word) in _TWO_WORDS:
            joined[-1] += word
        else:
            joined.append(word)
    memory = tuple(int(m.group(1)) for w in joined if (m := _MEMORY.fullmatch(w)))
    rest = frozenset(
        _SAME.get(w, w)
        for w in joined
        if w not in _NOISE and not _MEMORY.fullmatch(w) and not _COUNT_OR_POWER.fullmatch(w)
    )
    return rest, memory


def _apart(word: str) -> tuple[str, ...]:
    match = _JOINED.fullmatch(word)
    if match is None:
        return (word,)
    rtx, kind, number, suffix, chip, form = match.groups()
    if chip:
        return chip, form
    own = f"a{number}" if kind == "a" else number
    return tuple(part for part in (rtx, kind if kind == "pro" else "", own, suffix) if part)


def is_slice(spelling: str) -> bool:
    """Whether a spelling names a MIG slice of a GPU.

    >>> is_slice("NVIDIA A100-SXM4-80GB MIG 3g.40gb"), is_slice("NVIDIA A100-SXM4-80GB")
    (True, False)
    """
    return _SLICE.search(spelling) is not None


def fits(spelling: str, record: GpuTokens) -> bool:
    """Whether every informative token of `spelling` fits `record`, and the chip is named."""
    words, memory = tokens(spelling)
    if not record.chip <= words or not words <= record.chip | record.fitting:
        return False
    return all(
        any(abs(size / own - 1) <= MEMORY_TOLERANCE for own in record.gigabytes) for size in memory
    )
