"""ERNIE 4.5 with experts: a dense first layer, shared experts, balanced router.

The vision models route images to narrower experts of their own, which text never meets: their
weights are counted, not their work.
"""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture, Ffn

MODEL_TYPES = ("ernie4_5_moe", "ernie4_5_vl_moe_text", "ernie4_5_moe_vl")

_BY_MODALITY = (
    *("moe_intermediate_size", "moe_num_experts", "moe_k"),
    *("moe_layer_start_index", "moe_layer_end_index"),
)


def architecture(config: Config) -> Architecture:
    """Read an ERNIE 4.5 MoE config; of lists the first entry is the text's, the second vision's."""
    text, vision = _modality(config, 0), _modality(config, 1)
    bias = text.flag("use_bias", False)
    attention = grouped_query(text, bias=bias, o_bias=bias)
    width = text.integer("moe_intermediate_size")
    shared = text.integer("moe_num_shared_experts", default=0, minimum=0)
    experts = Ffn(
        kind="moe",
        intermediate_size=width,
        num_experts=text.integer("moe_num_experts"),
        top_k=text.integer("moe_k"),
        shared_intermediate_size=shared * width,
        bias=bias,
        router_bias=text.flag("moe_use_aux_free", True),
    )
    sparse = _sparse(text)
    layers: list[Layer] = [(attention, experts if routed else dense(text)) for routed in sparse]
    extra = 0
    if isinstance(config.values.get("moe_intermediate_size"), list):
        hidden = text.integer("hidden_size")
        one = 3 * hidden * vision.integer("moe_intermediate_size") + hidden + 1
        extra = sum(sparse) * vision.integer("moe_num_experts") * one
    return assemble(text, layers, tied=True, extra=extra)


def _modality(config: Config, index: int) -> Config:
    own = {}
    for key in _BY_MODALITY:
        value = config.values.get(key)
        if isinstance(value, list):
            if len(value) != 2:
                raise config.error(
                    key, f"has {len(value)} entries, expected one of text and vision"
                )
            own[key] = value[index]
    return Config({**config.values, **own}, config.where, config.prefix)


def _sparse(config: Config) -> tuple[bool, ...]:
    layers = config.layers()
    kinds = config.strings("mlp_layer_types")
    if kinds:
        if len(kinds) != layers:
            raise config.error("mlp_layer_types", f"has {len(kinds)} entries for {layers} layers")
        return tuple(kind == "sparse" for kind in kinds)
    first = config.integer("moe_layer_start_index", default=0, minimum=0)
    last = config.integer("moe_layer_end_index", default=layers - 1, minimum=-1)
    every = config.integer("moe_layer_interval", default=1)
    end = last if last >= 0 else layers - 1
    return tuple(first <= i <= end and (i + 1) % every == 0 for i in range(layers))
