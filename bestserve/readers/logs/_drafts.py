"""What logs say of speculative decoding, as `TidyRow` keywords.

Clients count accepted tokens per draft (vLLM: by position as well, out of all drafts; AIPerf:
steps by how many were accepted), servers state a mean length per step (SGLang, TensorRT-LLM),
commands the method and the number of drafts.
Trees of drafts (SGLang's top-k above 1) have no single number of drafts: none is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

METHODS = {
    "eagle": "eagle",
    "eagle3": "eagle3",
    "nextn": "mtp",
    "mtp": "mtp",
    "standalone": "draft_model",
    "draft_model": "draft_model",
    "draft_target": "draft_model",
    "drafttarget": "draft_model",
    "ngram": "ngram",
    "suffix": "suffix",
}
"""Methods as engines and clients write them."""

MOST = 32
"""Drafts per step at most: more is no chain of drafts."""


def drafts(
    method: str | None = None,
    tokens: float | None = None,
    length: float | None = None,
    by_position: Sequence[object] | None = None,
) -> dict[str, Any]:
    """Return the keywords that say what was drafted and accepted; what makes no sense is left out.

    tokens : drafts per step; length : tokens per step, the model's own among them; by_position :
    share of all drafts whose first, second, … token was accepted [1]
    """
    out: dict[str, Any] = {}
    name = METHODS.get((method or "").strip().lower().removeprefix("deepseek_"))
    if name is not None:
        out["draft_method"] = name
    if tokens is not None and 1 <= tokens <= MOST and abs(tokens - round(tokens)) < 1e-6:
        out["draft_tokens"] = round(tokens)
    if length is not None and 1 <= length <= MOST + 1:
        out["accept_length"] = float(length)
    shares = [float(s) for s in by_position or () if isinstance(s, int | float) and 0 <= s <= 1]
    if shares and len(shares) == len(by_position or ()) <= MOST:
        out["accepted_by_position"] = tuple(shares)
    return {**out, "speculative_decoding": True} if out else {}


def drafts_of_steps(steps: Mapping[str, object], tokens: float | None = None) -> dict[str, Any]:
    """Return what counts of steps by accepted drafts say; nothing where they are no counts.

    tokens : drafts per step, default the most that a step accepted

    >>> drafts_of_steps({"0": 5, "1": 3, "2": 2})["accepted_by_position"]
    (0.5, 0.2)
    """
    counts = {}
    for accepted, count in list(steps.items())[: 2 * MOST]:
        if not re.fullmatch(r"\d{1,2}", str(accepted)) or isinstance(count, bool):
            return {}
        if not isinstance(count, int | float) or not 0 <= count < 1e15:
            return {}
        counts[int(accepted)] = float(count)
    whole = sum(counts.values())
    if whole <= 0:
        return {}
    most = max(accepted for accepted, count in counts.items() if count)
    drafted = max(round(tokens or 0), most)
    shares = [
        sum(count for accepted, count in counts.items() if accepted >= position) / whole
        for position in range(1, drafted + 1)
    ]
    return drafts(tokens=drafted, length=1.0 + sum(shares), by_position=shares)


def drafts_of_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server's flags say of drafts; keys as Python writes them."""
    config = flags.get("speculative_config")
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError):
            config = None
    if isinstance(config, Mapping):
        tokens = _whole(config.get("num_speculative_tokens"))
        return drafts(str(config.get("method") or "")[:40], tokens)
    algorithm = flags.get("speculative_algorithm")
    if not isinstance(algorithm, str):
        return {}
    tree = _whole(flags.get("speculative_eagle_topk")) not in (None, 1)
    steps = None if tree else _whole(flags.get("speculative_num_steps"))
    return {"speculative_decoding": True, **drafts(algorithm, steps)}


def _whole(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,4}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_NUMBER = r"(\d+(?:\.\d+)?)"
_STATED = re.compile(
    r"^speculative (?P<method>[a-z]\w*) num_speculative_tokens (?P<tokens>\d{1,3})\b", re.IGNORECASE
)
_LENGTH = re.compile(rf"\baccept length {_NUMBER}")
_POSITIONS = re.compile(r"^acceptance per position (?P<shares>[\d./]{1,200})$")


def drafts_of_note(note: str) -> dict[str, Any]:
    """Return what one note of a tidy row says of drafts.

    >>> drafts_of_note("speculative eagle3 num_speculative_tokens 3 draft a/b")["draft_tokens"]
    3
    """
    if match := _STATED.search(note):
        return drafts(match["method"], float(match["tokens"]))
    if match := _LENGTH.search(note):
        return drafts(length=float(match[1]))
    if match := _POSITIONS.search(note):
        parts = match["shares"].split("/")
        if all(re.fullmatch(_NUMBER, part) for part in parts):
            return drafts(by_position=[float(part) for part in parts])
    return {}
