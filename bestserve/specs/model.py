"""An LLM as it is deployed: its architecture and the number formats of its checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import Formats, Precision, StoredWeights
from bestserve.models.step.parameters import ParameterCounts, parameter_counts
from bestserve.specs.base import Spec

KvDtype = Literal["auto", "bf16", "fp8", "nvfp4"]
KV_BYTES: dict[KvDtype, float] = {"auto": 2.0, "bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5 + 1 / 16}
"""Bytes per element of the KV cache, block scales included."""

_KV_WORDS: dict[str, KvDtype] = {
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp8_inc": "fp8",
    "bfloat16": "bf16",
    "float16": "bf16",
    "half": "bf16",
    "fp16": "bf16",
    "fp4_e2m1": "nvfp4",
    "fp4": "nvfp4",
}


def kv_dtype(value: object) -> object:
    """Return the usual word for what vLLM and SGLang call a cache format; others unchanged.

    >>> kv_dtype("fp8_e4m3"), kv_dtype("auto")
    ('fp8', 'auto')
    """
    return _KV_WORDS.get(value.lower(), value) if isinstance(value, str) else value


class PublishedCount(Spec):
    """How many parameters the publisher counts, and what differs from ours by definition.

    without_embedding : the publisher leaves the input embedding out
    elsewhere : parameters the publisher counts and a text server does not hold or use [1]
    elsewhere_is : what those are
    """

    parameters: float = Field(gt=0)
    source: str = Field(min_length=1)
    without_embedding: bool = False
    elsewhere: float = Field(default=0.0, ge=0)
    elsewhere_is: str = ""


class Model(Spec):
    """A model to serve.

    name : as published, or the path it was read from
    record : name of the bundled record behind it ("" for the user's own file)
    weights : format of the linear layers outside the routed experts
    experts : format of the routed experts
    attention : format of the attention projections where it differs from `weights`
    stored : formats by part as the checkpoint's own config states them, group sizes and single
        layers included; they come before those three
    quantisation : the checkpoint's own word for its method ("" if none)
    kv_cache_dtype : "fp8" or "nvfp4" if the checkpoint brings scales for such a cache, else "auto"
        (bf16)
    max_position_embeddings : longest context, the config's own rope scaling included [tokens]; 0:
        not stated
    published : what the publisher counts, and where
    source : where the architecture figures come from
    notes : what was left out or assumed
    """

    name: str = Field(min_length=1, max_length=400)
    record: str = ""
    architecture: Architecture
    weights: Precision = "bf16"
    experts: Precision = "bf16"
    attention: Precision | None = None
    stored: StoredWeights | None = None
    quantisation: str = ""
    kv_cache_dtype: KvDtype = "auto"
    max_position_embeddings: int = Field(default=0, ge=0)
    published: PublishedCount | None = None
    source: str = Field(min_length=1)
    notes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def parameters(self) -> ParameterCounts:
        """Count the parameters, by part."""
        return parameter_counts(self.architecture)

    def parameters_as_published(self) -> float:
        """Count the parameters the way the publisher does, to compare with `published`."""
        counts = self.parameters()
        if self.published is None:
            return float(counts.total)
        left_out = counts.embedding if self.published.without_embedding else 0
        return counts.total - left_out + self.published.elsewhere

    def formats(
        self, *, precision: Precision | None = None, kv_cache_dtype: KvDtype | None = None
    ) -> Formats:
        """Return the number formats of a deployment.

        precision : quantise all linear layers to this instead of the checkpoint's formats
        kv_cache_dtype : None or "auto" takes the checkpoint's
        """
        kv = self.kv_cache_dtype if kv_cache_dtype in (None, "auto") else kv_cache_dtype
        return Formats(
            weights=precision or self.weights,
            experts=precision or self.experts,
            attention=precision or self.attention,
            stored=None if precision else self.stored,
            kv_bytes=KV_BYTES[kv],
        )
