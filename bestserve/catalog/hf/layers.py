"""Building blocks that several architecture families share."""

from __future__ import annotations

from collections.abc import Iterable

from bestserve.catalog.hf.config import Config
from bestserve.models.step.architecture import (
    Architecture,
    Attention,
    AttentionKind,
    Ffn,
    LayerGroup,
)

Layer = tuple[Attention, Ffn]


def group(layers: Iterable[Layer]) -> tuple[tuple[LayerGroup, ...], tuple[int, ...]]:
    """Count equal layers; groups come in the order of their first layer.

    Returns the groups and, per layer, the index of its group.
    """
    counts: dict[Layer, int] = {}
    order = []
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
        order.append(list(counts).index(layer))
    groups = tuple(LayerGroup(count=n, attention=a, ffn=f) for (a, f), n in counts.items())
    return groups, tuple(order)


def head_dim(config: Config) -> int:
    """Return `head_dim`, or hidden size over heads as Transformers does when it is absent."""
    heads = config.integer("num_attention_heads")
    if config.has("head_dim"):
        return config.integer("head_dim")
    hidden = config.integer("hidden_size")
    if hidden % heads:
        raise config.error("num_attention_heads", f"is {heads}, which does not divide {hidden}")
    return hidden // heads


def grouped_query(
    config: Config,
    *,
    kind: AttentionKind = "full",
    window: int = 0,
    bias: bool = False,
    o_bias: bool = False,
    qk_norm: bool = False,
    qk_norm_heads: bool = False,
    output_gate: bool = False,
    sinks: bool = False,
) -> Attention:
    """Return multi-head, grouped-query or multi-query attention from the usual keys."""
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"is {kv_heads}, which does not divide {heads}")
    return Attention(
        kind=kind,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim(config),
        window=window,
        bias=bias,
        o_bias=o_bias,
        qk_norm=qk_norm,
        qk_norm_heads=qk_norm_heads,
        output_gate=output_gate,
        sinks=sinks,
    )


def dense(config: Config, *keys: str, gated: bool = True, bias: bool = False) -> Ffn:
    """Return the dense feed-forward part; the width is under the first of `keys` present."""
    width = config.integer(*(keys or ("intermediate_size",)))
    return Ffn(kind="dense", intermediate_size=width, gated=gated, bias=bias)


def assemble(
    config: Config,
    layers: Iterable[Layer],
    *,
    tied: bool,
    norms_per_layer: int = 2,
    norm_bias: bool = False,
    extra: int = 0,
) -> Architecture:
    """Return the architecture; `tied` is the family's default for tied embeddings."""
    groups, order = group(layers)
    return Architecture(
        hidden_size=config.integer("hidden_size"),
        vocab_size=config.integer("vocab_size"),
        groups=groups,
        order=order if len(groups) > 1 else (),
        tie_word_embeddings=config.flag("tie_word_embeddings", tied),
        norms_per_layer=norms_per_layer,
        norm_bias=norm_bias,
        extra_parameters=extra,
    )


def routed(
    config: Config,
    *,
    experts: str,
    width: str = "moe_intermediate_size",
    shared: int = 0,
    shared_gate: bool = False,
    bias: bool = False,
    router_bias: bool = False,
) -> Ffn:
    """Return routed experts; `experts` and `width` are the keys of their number and size."""
    number = config.integer(experts)
    return Ffn(
        kind="moe",
        intermediate_size=config.integer(width),
        num_experts=number,
        top_k=config.integer("num_experts_per_tok", maximum=number),
        shared_intermediate_size=shared,
        shared_gate=shared_gate and shared > 0,
        bias=bias,
        router_bias=router_bias,
    )


def sparse_steps(config: Config) -> tuple[bool, ...]:
    """Return for each layer whether it has experts, by Qwen's step and list of dense layers."""
    step = config.integer("decoder_sparse_step", default=1)
    only = config.values.get("mlp_only_layers") or []
    if not isinstance(only, list):
        raise config.error("mlp_only_layers", "is no list of layer numbers")
    return tuple((i + 1) % step == 0 and i not in only for i in range(config.layers()))
