"""What a transformer computes, as numbers: the shapes that operators, memory and KV need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bestserve.models.step.vision import Vision

AttentionKind = Literal["full", "sliding", "chunked", "mla", "linear", "none"]
FfnKind = Literal["dense", "moe", "none"]
LinearForm = Literal["gated_delta", "kda", "mamba2", "mamba1", "lightning", "conv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One kind of attention layer.

    kind : "full" (MHA, GQA, MQA), "sliding" (each query sees `window` keys), "chunked" (keys of
        its own chunk of `window`, Llama 4), "mla" (latent KV, DeepSeek), "linear" (recurrent state
        of fixed size), "none" (a layer of feed-forward or experts alone)
    num_heads, num_kv_heads, head_dim : as in config.json; `v_head_dim` 0 means `head_dim`
    q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim : MLA only; q_lora_rank 0: none
    bias : biases on the q, k, v projections; o_bias : on the output projection
    qk_norm : RMSNorm on q and k (per head dimension); qk_norm_heads : its weights differ by head
    output_gate : the q projection is doubled by an elementwise output gate (Qwen3.5)
    sinks : one learned attention sink per head (gpt-oss)
    shared_kv : values are the keys before their norm, so there is no v projection (Gemma 4); the
        cache still holds both
    borrows_kv : reads what an earlier layer of its kind cached: no k and v projections, no cache
        of its own (Gemma 3n, Gemma 4 for phones)
    index_heads, index_dim, index_topk : MLA with an indexer that keeps `index_topk` keys per query
        (DeepSeek sparse attention); its keys are cached, `index_dim` per token; index_topk 0: it
        attends to all; index_heads 0 with a topk: the layer reuses the picks of an earlier one
    compress : MLA that keeps the last `window` latents and one for `compress` tokens before
        (DeepSeek-V4; 0: none before); −1: not compressed
    linear_* : heads and widths of the recurrent state, convolution length; `linear_form` says
        which: gated delta rule (Qwen3-Next, Qwen3.5), Kimi's delta attention, Mamba 2 (key heads
        are its groups, the key width its state) and 1, lightning attention (MiniMax-01), short
        convolutions alone (LFM2)
    extra_parameters : learned parameters that these shapes do not explain
    """

    kind: AttentionKind
    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int = 0
    window: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    qk_norm_heads: bool = False
    output_gate: bool = False
    sinks: bool = False
    shared_kv: bool = False
    borrows_kv: bool = False
    index_heads: int = 0
    index_dim: int = 0
    index_topk: int = 0
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    linear_conv: int = 0
    linear_form: LinearForm = "gated_delta"
    compress: int = -1
    extra_parameters: int = 0

    @property
    def state_elements(self) -> int:
        """Numbers in the recurrent state of one sequence [1]."""
        return self.linear_value_heads * self.linear_value_dim * self.linear_key_dim

    @property
    def convolution_elements(self) -> int:
        """Channels of the short convolution [1]."""
        if self.linear_form == "lightning":
            return 0
        keys = self.linear_key_heads * self.linear_key_dim
        return 2 * keys + self.linear_value_heads * self.linear_value_dim


NO_ATTENTION = Attention(kind="none", num_heads=0, num_kv_heads=0, head_dim=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn:
    """One kind of feed-forward layer.

    kind : "dense", "moe", or "none" (a layer of attention or recurrence alone)
    intermediate_size : dense width, or the width of one routed expert
    gated : three matrices (SwiGLU, GeGLU) instead of two
    num_experts, top_k : routed experts and how many a token uses (MoE)
    shared_intermediate_size : total width of the always-active shared experts (0: none), or of
        the dense feed-forward part that runs beside the experts (Gemma 4)
    bias : biases on all matrices; shared_gate : the shared experts' output is gated per token
    router_bias : one learned bias per routed expert
    routed_hidden_size : width to which tokens are projected before the routed experts, and back
        (latent mixtures, Nemotron 3, Kimi K3); 0: experts see the hidden size
    """

    kind: FfnKind
    intermediate_size: int
    gated: bool = True
    num_experts: int = 0
    top_k: int = 0
    shared_intermediate_size: int = 0
    bias: bool = False
    shared_gate: bool = False
    router_bias: bool = False
    routed_hidden_size: int = 0


NO_FFN = Ffn(kind="none", intermediate_size=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """`count` layers with the same attention and feed-forward part."""

    count: int
    attention: Attention
    ffn: Ffn


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder-only transformer.

    extra_parameters : learned parameters that no group explains (learned positions, norms with
        bias, hyper-connections), so that totals match the published count
    norms_per_layer : RMSNorm/LayerNorm weights of hidden size per layer
    tower_parameters : of vision and audio towers, which are held beside the decoder [1]
    vision : the tower for images and how it cuts them, where the rule is known
    mtp_layers : for multi-token prediction, in the checkpoint but not in `groups`
    order : for each decoder layer the index of its group; () where the groups follow each other
    """

    hidden_size: int
    vocab_size: int
    groups: tuple[LayerGroup, ...]
    tie_word_embeddings: bool = False
    norms_per_layer: int = 2
    norm_bias: bool = False
    extra_parameters: int = 0
    tower_parameters: int = 0
    vision: Vision | None = None
    mtp_layers: int = 0
    order: tuple[int, ...] = ()

    @property
    def layers(self) -> tuple[LayerGroup, ...]:
        """The group of each decoder layer, in order."""
        if self.order:
            return tuple(self.groups[index] for index in self.order)
        return tuple(group for group in self.groups for _ in range(group.count))

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes tokens to experts."""
        return any(g.ffn.kind == "moe" for g in self.groups)

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return sum(g.count for g in self.groups)
