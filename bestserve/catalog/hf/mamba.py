"""Mamba alone, and hybrids with attention: Jamba, Bamba, Granite 4, Nemotron-H and 3, Falcon-H1."""

from __future__ import annotations

import math

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import (
    EXPERTS,
    Layer,
    assemble,
    dense,
    experts_beside,
    grouped_query,
)
from bestserve.models.step.architecture import NO_ATTENTION, NO_FFN, Architecture, Attention, Ffn

_ALONE = ("mamba", "falcon_mamba", "mamba2")
MODEL_TYPES = (*_ALONE, "jamba", "bamba", "granitemoehybrid", "nemotron_h", "falcon_h1")

_NEMOTRON = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
_KINDS = {
    **dict.fromkeys(("mamba", "linear_attention", "mamba2"), "mamba"),
    **dict.fromkeys(("attention", "full_attention"), "attention"),
    **dict.fromkeys(("moe", "mlp"), ""),
}
HEAD = 64
"""Width into which Mamba 1's channels are grouped here; it has no heads of its own."""


def architecture(config: Config) -> Architecture:
    """Read a hybrid; each family has its own way to place attention."""
    return {
        **dict.fromkeys(_ALONE, _alone),
        "jamba": _jamba,
        "bamba": _bamba,
        "granitemoehybrid": _granite,
        "nemotron_h": _nemotron,
        "falcon_h1": _falcon,
    }[config.text("model_type")](config)


def _alone(config: Config) -> Architecture:
    """Mamba 1 and 2 without any attention: a state per sequence, nothing per token."""
    hidden = config.integer("hidden_size")
    convolution = config.integer("conv_kernel", default=4)
    second = config.text("model_type") == "mamba2"
    if second:
        mamba = _mamba2(
            config,
            heads=config.integer("num_heads", default=128),
            width=config.integer("head_dim", default=64),
            groups=config.integer("n_groups", default=8),
            state=config.integer("state_size", default=128),
            convolution=convolution,
        )
    else:
        inner = config.integer(
            "intermediate_size", default=config.integer("expand", default=2) * hidden
        )
        mamba = _mamba1(inner, config.integer("state_size", default=16), convolution)
    layers: list[Layer] = [(mamba, NO_FFN)] * config.layers()
    return assemble(config, layers, tied=not second, norms_per_layer=1)


def _mamba1(inner: int, state: int, convolution: int) -> Attention:
    width = math.gcd(inner, HEAD)
    return Attention(
        kind="linear",
        linear_form="mamba1",
        num_heads=inner // width,
        num_kv_heads=0,
        head_dim=width,
        linear_value_heads=inner // width,
        linear_value_dim=width,
        linear_key_dim=state,
        linear_conv=convolution,
    )


def _jamba(config: Config) -> Architecture:
    attention = grouped_query(config)
    inner = config.integer("mamba_expand", default=2) * config.integer("hidden_size")
    mamba = _mamba1(
        inner,
        config.integer("mamba_d_state", default=16),
        config.integer("mamba_d_conv", default=4),
    )
    every = config.integer("attn_layer_period", default=8)
    first = config.integer("attn_layer_offset", default=4, minimum=0)
    step = config.integer("expert_layer_period", default=2)
    start = config.integer("expert_layer_offset", default=1, minimum=0)
    number = config.integer("num_experts", default=16)
    experts = experts_beside(config) if number > 1 else dense(config)
    layers: list[Layer] = [
        (
            attention if i % every == first else mamba,
            experts if i % step == start else dense(config),
        )
        for i in range(config.layers())
    ]
    return assemble(config, layers, tied=False)


def _mamba2(
    config: Config, heads: int, width: int, groups: int, state: int, convolution: int
) -> Attention:
    return Attention(
        kind="linear",
        linear_form="mamba2",
        num_heads=heads,
        num_kv_heads=groups,
        head_dim=width,
        linear_key_heads=groups,
        linear_value_heads=heads,
        linear_key_dim=state,
        linear_value_dim=width,
        linear_conv=convolution,
    )


def _mamba_keys(config: Config) -> Attention:
    heads = config.integer("mamba_n_heads", default=128)
    inner = config.integer("mamba_expand", default=2) * config.integer("hidden_size")
    width = config.values.get("mamba_d_head")
    return _mamba2(
        config,
        heads=heads,
        width=config.integer("mamba_d_head") if isinstance(width, int) else inner // heads,
        groups=config.integer("mamba_n_groups", default=1),
        state=config.integer("mamba_d_state", default=256),
        convolution=config.integer("mamba_d_conv", default=4),
    )


def _bamba(config: Config) -> Architecture:
    attention, mamba = grouped_query(config), _mamba_keys(config)
    attending = config.values.get("attn_layer_indices") or []
    if not isinstance(attending, list):
        raise config.error("attn_layer_indices", "is no list of layer numbers")
    layers: list[Layer] = [
        (attention if i in attending else mamba, dense(config)) for i in range(config.layers())
    ]
    return assemble(config, layers, tied=False)


def _granite(config: Config) -> Architecture:
    attention = grouped_query(config, bias=config.flag("attention_bias", False))
    types = config.layer_types(_KINDS) or ("mamba",) * config.layers()
    mamba = _mamba_keys(config) if any(_KINDS[t] == "mamba" for t in types) else attention
    shared = config.integer("shared_intermediate_size", default=1024)
    if config.integer("num_local_experts", default=0, minimum=0):
        ffn = experts_beside(config)
    else:
        ffn = Ffn(kind="dense", intermediate_size=shared)
    layers: list[Layer] = [(mamba if _KINDS[kind] == "mamba" else attention, ffn) for kind in types]
    return assemble(config, layers, tied=True)


def _nemotron(config: Config) -> Architecture:
    """Nemotron-H: each layer is one of Mamba, attention, feed-forward or experts."""
    pattern = config.values.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        unknown = set(pattern) - set(_NEMOTRON)
        if unknown:
            raise config.error("hybrid_override_pattern", f"contains {sorted(unknown)[0]!r}")
        kinds = [_NEMOTRON[letter] for letter in pattern]
    else:
        kinds = list(config.strings("layers_block_type") or config.strings("layer_types"))
        if not kinds:
            raise config.error("hybrid_override_pattern", "is missing; is the file complete?")
        for kind in kinds:
            if kind not in _KINDS:
                raise config.error("layers_block_type", f"contains {kind[:40]!r}")
    stated = config.integer("num_hidden_layers", default=len(kinds), maximum=2000)
    if stated != len(kinds):
        raise config.error("num_hidden_layers", f"is {stated}, the pattern has {len(kinds)} layers")
    mamba = _mamba2(
        config,
        heads=config.integer("mamba_num_heads"),
        width=config.integer("mamba_head_dim"),
        groups=config.integer("n_groups"),
        state=config.integer("ssm_state_size"),
        convolution=config.integer("conv_kernel", default=4),
    )
    attention = grouped_query(config, bias=config.flag("attention_bias", False))
    has_experts = any(config.has(key) for key in EXPERTS) and "moe" in kinds
    experts = _latent_experts(config) if has_experts else NO_FFN
    parts: dict[str, Layer] = {
        "mamba": (mamba, NO_FFN),
        "attention": (attention, NO_FFN),
        "moe": (NO_ATTENTION, experts),
        "mlp": (NO_ATTENTION, dense(config, gated=False) if "mlp" in kinds else NO_FFN),
    }
    return assemble(
        Config({**config.values, "num_hidden_layers": stated}, config.where, config.prefix),
        [parts[_KINDS[kind] or kind] for kind in kinds],
        tied=False,
        norms_per_layer=1,
    )


def _latent_experts(config: Config) -> Ffn:
    found = experts_beside(config, gated=False, router_bias=True)
    count = config.integer("n_shared_experts", default=1, minimum=0)
    width = config.integer("moe_shared_expert_intermediate_size", default=0, minimum=0)
    return Ffn(
        kind="moe",
        intermediate_size=found.intermediate_size,
        gated=False,
        num_experts=found.num_experts,
        top_k=found.top_k,
        shared_intermediate_size=width if count else 0,
        router_bias=True,
        routed_hidden_size=config.integer("moe_latent_size", default=0, minimum=0),
    )


def _falcon(config: Config) -> Architecture:
    """Falcon-H1: attention and Mamba side by side in every layer, counted as two layers here."""
    attention = grouped_query(config, bias=config.flag("attention_bias", False))
    heads = config.integer("mamba_n_heads", default=128)
    inner = config.integer("mamba_d_ssm", default=0, minimum=0) or (
        config.integer("mamba_expand", default=2) * config.integer("hidden_size")
    )
    mamba = _mamba2(
        config,
        heads=heads,
        width=inner // heads,
        groups=config.integer("mamba_n_groups", default=1),
        state=config.integer("mamba_d_state", default=256),
        convolution=config.integer("mamba_d_conv", default=4),
    )
    layers: list[Layer] = [(attention, NO_FFN), (mamba, dense(config))] * config.layers()
    return assemble(config, layers, tied=False, norms_per_layer=1)
