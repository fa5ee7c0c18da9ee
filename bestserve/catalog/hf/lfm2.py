"""LFM2, dense and with experts: short convolutions, some layers attend."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, experts_beside, grouped_query
from bestserve.models.step.architecture import Architecture, Attention, Ffn

MODEL_TYPES = ("lfm2", "lfm2_moe")


def architecture(config: Config) -> Architecture:
    """Read an LFM2 config; `layer_types` or `full_attn_idxs` places attention."""
    hidden = config.integer("hidden_size")
    convolution = Attention(
        kind="linear",
        linear_form="conv",
        num_heads=1,
        num_kv_heads=0,
        head_dim=hidden,
        linear_value_heads=1,
        linear_value_dim=hidden,
        linear_conv=config.integer("conv_L_cache", default=3),
    )
    full = grouped_query(config, qk_norm=True)
    kinds = {"full_attention": full, "conv": convolution}
    types = config.layer_types(kinds)
    if not types:
        attending = config.values.get("full_attn_idxs") or range(config.layers())
        types = tuple(
            "full_attention" if i in attending else "conv" for i in range(config.layers())
        )
    if config.text("model_type") == "lfm2":
        layers: list[Layer] = [(kinds[kind], _dense(config)) for kind in types]
    else:
        first = config.integer("num_dense_layers", default=2, minimum=0)
        experts = experts_beside(config, router_bias=config.flag("use_expert_bias", True))
        layers = [
            (kinds[kind], dense(config) if i < first else experts) for i, kind in enumerate(types)
        ]
    return assemble(config, layers, tied=config.flag("tie_embedding", True))


def _dense(config: Config) -> Ffn:
    """Return the feed-forward part; its width is two thirds of what is stated, rounded up."""
    width = config.integer("intermediate_size", "block_ff_dim")
    if config.flag("block_auto_adjust_ff_dim", True):
        factor = (
            config.number("block_ffn_dim_multiplier")
            if config.has("block_ffn_dim_multiplier")
            else 1.0
        )
        multiple = config.integer("block_multiple_of", default=256)
        width = int(factor * int(2 * width / 3))
        width = multiple * -(-width // multiple)
    return Ffn(kind="dense", intermediate_size=width)
