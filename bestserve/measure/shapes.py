"""The part of a decoder layer that one GPU of a tensor-parallel group holds, and its size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bestserve.errors import InputError
from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup

Format = Literal["bf16", "fp8"]
ELEMENT_BYTES: dict[Format, int] = {"bf16": 2, "fp8": 1}
"""Bytes per weight."""
ACTIVATION_BYTES = 2
"""Activations and KV cache are bf16 [B]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """One decoder layer on one GPU.

    hidden : width of the residual stream, not sharded
    heads, kv_heads, head_dim : of this GPU's share; KV heads are replicated once tp exceeds them
    intermediate : this GPU's share of the dense (or of each expert's) feed-forward width
    gated : SwiGLU-like (three matrices) or two matrices
    experts, top_k : routed experts, all on this GPU with their width sharded; 0: dense
    window : sliding attention sees this many keys; 0: all
    model_layers : decoder layers of the whole model
    vocab : this GPU's share of the vocabulary
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool = True
    experts: int = 0
    top_k: int = 0
    window: int = 0
    model_layers: int = 1
    vocab: int = 0

    @property
    def qkv_width(self) -> int:
        """Output width of the fused query, key and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def up_width(self) -> int:
        """Output width of the fused gate and up projection (of one expert)."""
        return (2 if self.gated else 1) * self.intermediate

    @property
    def weights(self) -> int:
        """Matrix elements of one layer."""
        attention = self.hidden * (self.qkv_width + self.heads * self.head_dim)
        ffn = self.hidden * (self.up_width + self.intermediate)
        return attention + ffn * max(1, self.experts)

    @property
    def kv_elements_per_token(self) -> int:
        """Key and value elements that one token leaves in one layer."""
        return 2 * self.kv_heads * self.head_dim

    def gemms(self) -> dict[str, tuple[int, int]]:
        """Return the dense projections as name → (n, k): output and input width."""
        shapes = {
            "qkv": (self.qkv_width, self.hidden),
            "attention_out": (self.hidden, self.heads * self.head_dim),
        }
        if not self.experts:
            shapes["ffn_up"] = (self.up_width, self.hidden)
            shapes["ffn_down"] = (self.hidden, self.intermediate)
        return shapes


def shard(architecture: Architecture, tp: int = 1) -> LayerShape:
    """Return the most frequent layer of `architecture` as one of `tp` GPUs holds it.

    `InputError` when tp does not divide the heads or the feed-forward width, or when the layer
    uses an attention kind that `measure` has no kernels for (latent and linear attention).
    """
    if tp < 1:
        raise InputError(f"tp = {tp} must be at least 1")
    group = _main_group(architecture)
    attention, ffn = group.attention, group.ffn
    _check(attention, ffn, tp)
    return LayerShape(
        hidden=architecture.hidden_size,
        heads=attention.num_heads // tp,
        kv_heads=max(1, attention.num_kv_heads // tp),
        head_dim=attention.head_dim,
        intermediate=ffn.intermediate_size // tp,
        gated=ffn.gated,
        experts=ffn.num_experts if ffn.kind == "moe" else 0,
        top_k=ffn.top_k if ffn.kind == "moe" else 0,
        window=attention.window if attention.kind == "sliding" else 0,
        model_layers=architecture.num_layers,
        vocab=-(-architecture.vocab_size // tp),
    )


def _main_group(architecture: Architecture) -> LayerGroup:
    supported = [g for g in architecture.groups if g.attention.kind in ("full", "sliding")]
    if not supported:
        kinds = sorted({g.attention.kind for g in architecture.groups})
        raise InputError(
            f"measure has kernels for full and sliding attention only; this model has "
            f"{', '.join(kinds)}; measure a GQA model and use its records for this one's GPU"
        )
    return max(supported, key=lambda g: g.count)


def _check(attention: Attention, ffn: Ffn, tp: int) -> None:
    widths = {
        "attention heads": attention.num_heads,
        "feed-forward width": ffn.intermediate_size,
    }
    for name, width in widths.items():
        if width % tp:
            raise InputError(f"tp = {tp} does not divide the {width} {name}; choose a divisor")
    if attention.num_kv_heads % tp and tp % attention.num_kv_heads:
        raise InputError(
            f"tp = {tp} and {attention.num_kv_heads} KV heads do not divide each other"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What a measurement will allocate, part by part [B]."""

    weights: int
    kv: int
    workspace: int

    @property
    def total(self) -> int:
        """All parts [B]."""
        return self.weights + self.kv + self.workspace

    def arithmetic(self) -> str:
        """Return the sum in words."""
        gb = 1e-9
        return (
            f"{self.total * gb:.2f} GB = weights {self.weights * gb:.2f} + KV cache "
            f"{self.kv * gb:.2f} + work space {self.workspace * gb:.2f}"
        )


def memory_need(
    shape: LayerShape, *, layers: int, fmt: Format, kv_tokens: int, tokens: int, flush: int = 0
) -> MemoryNeed:
    """Return what `layers` layers need for `kv_tokens` of cache and steps of `tokens` tokens [B].

    Work space counts, per token of the widest step, the residual (four buffers), the projections
    and the feed-forward activations, and the `flush` buffer.
    """
    expert_rows = max(1, shape.top_k)
    per_token = 4 * shape.hidden + 2 * shape.qkv_width + shape.heads * shape.head_dim
    per_token += expert_rows * (2 * shape.up_width + shape.intermediate)
    return MemoryNeed(
        weights=layers * shape.weights * ELEMENT_BYTES[fmt],
        kv=layers * kv_tokens * shape.kv_elements_per_token * ACTIVATION_BYTES,
        workspace=tokens * per_token * ACTIVATION_BYTES + flush,
    )


SELF_TEST_LIMITS = {"hidden": 256, "heads": 4, "head_dim": 64, "intermediate": 512, "vocab": 1024}
"""Largest sizes of the self-test: a CPU runs such a layer in under a millisecond."""


def reduced(shape: LayerShape) -> LayerShape:
    """Return a small layer of the same kind (grouping, gating, experts) for the self-test."""
    limits = {name: min(getattr(shape, name), top) for name, top in SELF_TEST_LIMITS.items()}
    group = shape.heads // shape.kv_heads
    kv_heads = max(1, limits["heads"] // group)
    return replace(
        shape,
        **limits,
        kv_heads=kv_heads,
        experts=min(shape.experts, 8),
        top_k=min(shape.top_k, 2),
    )
