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
    LinearForm,
)

Layer = tuple[Attention, Ffn]


EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k")
WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
SHARED = (
    *("shared_expert_intermediate_size", "shared_intermediate_size"),
    *("moe_shared_expert_intermediate_size", "share_expert_dim"),
)
SHARED_COUNT = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
)


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


def linear_heads(
    form: LinearForm, heads: int, width: int, *, conv: int = 0, extra: int = 0
) -> Attention:
    """Return linear attention whose keys and values have the same heads of one width.

    conv : taps of the short convolution, 0 without; extra : parameters beyond those of the form
    """
    return Attention(
        kind="linear",
        linear_form=form,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width,
        linear_key_heads=heads,
        linear_value_heads=heads,
        linear_key_dim=width,
        linear_value_dim=width,
        linear_conv=conv,
        extra_parameters=extra,
    )


FULL = ("full_attention", "attention", "full", "global", "global_attention")
"""Names in `layer_types` of layers that attend to everything."""
_SLIDING = ("sliding_attention", "sliding", "local", "local_attention")


def windows(config: Config, *, every: int = 0, default: int = 0) -> tuple[int, ...]:
    """Return each layer's sliding window [tokens], 0 where it attends to all.

    `layer_types` decides where there is one; else a pattern ("LLLG", or a number: every so many
    layers one is full), else `every` (0: all layers slide). Without a window, or with
    `use_sliding_window` false, no layer slides.

    default : window of the family where the file states none
    """
    layers = config.layers()
    window = config.integer("sliding_window", "sliding_window_size", default=default, minimum=0)
    types = config.values.get("layer_types")
    if types is not None:
        known = (*FULL, *_SLIDING)
        named = config.layer_types(dict.fromkeys(known))
        if named:
            if not window and any(kind in _SLIDING for kind in named):
                raise config.error("sliding_window", "is missing, but layer_types has such layers")
            return tuple(window if kind in _SLIDING else 0 for kind in named)
    if not window or not config.flag("use_sliding_window", True):
        return (0,) * layers
    pattern = config.values.get(
        "sliding_window_pattern", config.values.get("_sliding_window_pattern")
    )
    if isinstance(pattern, str):
        if not pattern or set(pattern.upper()) - set("LG"):
            raise config.error("sliding_window_pattern", "is not made of L (local) and G (global)")
        return tuple(window if pattern[i % len(pattern)] in "Ll" else 0 for i in range(layers))
    if pattern is not None:
        every = config.integer("sliding_window_pattern", "_sliding_window_pattern", minimum=0)
    if every == 0:
        return (window,) * layers
    return tuple(window if (i + 1) % every else 0 for i in range(layers))


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
    number = config.integer(experts, *EXPERTS)
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


def experts_beside(
    config: Config, *, router_bias: bool = False, gated: bool = True, shared_gate: bool = False
) -> Ffn:
    """Return routed experts by whichever of the usual keys the file has, shared ones included."""
    number = _one(config, EXPERTS)
    width = _one(config, (*WIDTH, "intermediate_size"))
    shared = _one(config, SHARED, default=0)
    count = _one(config, SHARED_COUNT, default=0)
    if not shared:
        shared = count * width
    return Ffn(
        kind="moe",
        intermediate_size=width,
        gated=gated,
        num_experts=number,
        top_k=min(_one(config, TOP_K), number),
        shared_intermediate_size=shared,
        shared_gate=shared_gate and shared > 0,
        router_bias=router_bias,
    )


def _one(config: Config, keys: tuple[str, ...], default: int | None = None) -> int:
    """Return a whole number; a list of equal ones (one per layer) counts as one."""
    for key in keys:
        value = config.values.get(key)
        if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
            if len(set(value)) > 1:
                raise config.error(key, "differs from layer to layer, which is not supported")
            return Config({key: value[0]}, config.where, config.prefix).integer(key)
    minimum = 1 if default is None else 0
    return config.integer(*keys, default=default, minimum=minimum)


def sparse_layers(config: Config) -> tuple[bool, ...]:
    """Return for each layer whether it has experts, by whichever of the usual keys says so."""
    layers = config.layers()
    for key, sparse in (
        ("mlp_layer_types", "sparse"),
        ("moe_layer_freq", 1),
        ("is_moe_layer", True),
    ):
        value = config.values.get(key)
        if isinstance(value, list):
            if len(value) < layers:
                raise config.error(key, f"has {len(value)} entries for {layers} hidden layers")
            words = ("moe", "hash_moe") if key == "mlp_layer_types" else ()
            return tuple(v == sparse or v in words for v in value[:layers])
    first = _one(
        config,
        ("first_k_dense_replace", "num_dense_layers", "moe_layer_num_skipped"),
        default=0,
    )
    every = config.integer("moe_layer_freq", "moe_layer_interval", default=1)
    by_step = sparse_steps(config)
    return tuple(i >= first and i % every == 0 and by_step[i] for i in range(layers))
