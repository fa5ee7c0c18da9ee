"""Speculative decoding as a user states it: vLLM's words, and how much of it is accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from bestserve.errors import InputError, nearest_names, shown
from bestserve.specs.base import Spec

Method = Literal["eagle", "eagle3", "mtp", "draft_model", "ngram", "suffix"]
METHODS: tuple[Method, ...] = get_args(Method)
MOST_DRAFTS = 32
LONGEST = 10_000
"""Characters of a configuration as text."""

Chance = Annotated[float, Field(ge=0, le=1)]
Acceptance = Chance | Annotated[tuple[Chance, ...], Field(min_length=1, max_length=MOST_DRAFTS)]
Row = tuple[
    Annotated[int, Field(ge=1, le=1_000_000)],
    Annotated[int, Field(ge=1, le=1_000_000)],
    Annotated[int, Field(ge=0, le=MOST_DRAFTS)],
]


class SpeculativeConfig(Spec):
    """What drafts tokens, how many, and how many of them the model accepts.

    method : eagle, eagle3, mtp, draft_model, ngram or suffix; default: draft_model with a `model`
    num_speculative_tokens : drafted per decode and step; default: what suits the method
    model : of the drafter: bundled name, or path of a config.json
    draft_tensor_parallel_size : GPUs that a draft model is split over; default: the model's
    prompt_lookup_min, prompt_lookup_max : n-grams that are looked up [tokens]
    num_speculative_tokens_per_batch_size : (from, to, drafts) by number of decodes in the step
    acceptance : chance that a draft is accepted if all before it are: one number, one per position,
        or the name of a data set whose acceptance was measured; default: assumed, by method
    acceptance_spread : coefficient of variation, between requests, of decode steps per token [1]
    draft_time : of one pass of the drafter [s]; default: from its shapes

    The first seven are vLLM's `--speculative-config`.

    >>> SpeculativeConfig.parse('{"method": "deepseek_mtp", "num_speculative_tokens": 1}').method
    'mtp'
    """

    method: Method
    num_speculative_tokens: int | None = Field(default=None, ge=1, le=MOST_DRAFTS)
    model: str | None = None
    draft_tensor_parallel_size: int | None = Field(default=None, ge=1, le=1024)
    prompt_lookup_min: int | None = Field(default=None, ge=1, le=1000)
    prompt_lookup_max: int | None = Field(default=None, ge=1, le=1000)
    num_speculative_tokens_per_batch_size: tuple[Row, ...] | None = Field(
        default=None, min_length=1, max_length=64
    )
    acceptance: Acceptance | str | None = None
    acceptance_spread: float | None = Field(default=None, ge=0, le=1)
    draft_time: float | None = Field(default=None, ge=0, le=10)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """Take vLLM's names of methods: the older ones too, and none beside a model."""
        if not isinstance(values, dict):
            return values
        method = values.get("method", "draft_model" if values.get("model") else None)
        if isinstance(method, str) and method.endswith("_mtp"):
            method = "mtp"  # deepseek_mtp, qwen3_next_mtp, …
        if method not in METHODS:
            near = ", ".join(nearest_names(str(method)[:40], METHODS) or METHODS)
            raise ValueError(f"method {shown(method, 40)} is not known; {near}")
        return {**values, "method": method}

    @field_validator("num_speculative_tokens_per_batch_size")
    @classmethod
    def _ascending(cls, rows: tuple[Row, ...] | None) -> tuple[Row, ...] | None:
        """Rows ascend from 1; what lies between two keeps the former's drafts, as in vLLM."""
        last = 0
        for low, high, _ in rows or ():
            if low <= last or high < low or (last == 0 and low != 1):
                raise ValueError("must be (from, to, drafts) by batch size, ascending from 1 on")
            last = high
        return rows

    @model_validator(mode="after")
    def _complete(self) -> SpeculativeConfig:
        if self.method == "draft_model" and self.model is None:
            raise ValueError("method draft_model needs a model")
        return self

    @classmethod
    def parse(cls, given: str | Mapping[str, Any] | SpeculativeConfig) -> SpeculativeConfig:
        """Read a configuration as JSON text or a mapping. Raises InputError."""
        if isinstance(given, SpeculativeConfig):
            return given
        values: Any = given
        if isinstance(given, str):
            try:
                values = json.loads(given[:LONGEST])
            except (ValueError, RecursionError):
                values = None
        if not isinstance(values, Mapping):
            raise InputError(
                "speculative_config must be a JSON object as vLLM takes it, "
                'e.g. {"method": "eagle3", "num_speculative_tokens": 3}'
            )
        return cls(**values)

    @property
    def drafter(self) -> bool:
        """Whether a network drafts, which has weights and a KV cache of its own."""
        return self.method not in ("ngram", "suffix")


def as_speculative_config(given: Any) -> Any:
    """Return what a `Problem` is given as a configuration; nothing, as {} or "", is None."""
    if isinstance(given, str | Mapping):
        return SpeculativeConfig.parse(given) if given else None
    return given


def with_acceptance(given: Any, stated: Sequence[str]) -> SpeculativeConfig:
    """Return a configuration with an acceptance as a command line states it. Raises InputError.

    >>> with_acceptance('{"method": "eagle3"}', ["0.7", "0.6"]).acceptance
    (0.7, 0.6)
    """
    if not given:
        raise InputError("acceptance is that of drafts: give speculative_config, too")
    values = SpeculativeConfig.parse(given).model_dump(exclude_none=True)
    texts = [part for text in stated for part in text.split(",") if part]
    numbers = [number for number in map(_number, texts) if number is not None]
    if len(numbers) == len(texts):
        values["acceptance"] = numbers[0] if len(numbers) == 1 else tuple(numbers)
    elif len(texts) == 1:
        values["acceptance"] = texts[0]
    else:
        raise InputError("acceptance: give one number, one per position, or the name of a data set")
    return SpeculativeConfig(**values)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
