"""Experts beside grouped-query attention, where only the usual keys differ: one line each.

Sources: the configuration and model classes of Transformers under the same names.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import (
    SHARED,
    SHARED_COUNT,
    Layer,
    assemble,
    dense,
    experts_beside,
    grouped_query,
    sparse_layers,
    windows,
)
from bestserve.models.step.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Traits:
    """How a family departs from Mixtral.

    tied : embedding and head share weights unless the file says otherwise
    bias, o_bias : default of biases; `bias_key` overrides them
    qk_norm : "" none, "dim" one weight per head dimension, "heads" one per head and dimension
    router_bias : one learned bias per expert; norms : per layer
    every : one layer in so many attends to all, the others slide
    output_gate : the attention's output is gated elementwise
    shared_always : one shared expert of the dense width unless the file says otherwise
    """

    tied: bool = False
    bias: bool = False
    o_bias: bool = False
    bias_key: str = "attention_bias"
    qk_norm: str = ""
    qk_norm_key: str = ""
    router_bias: bool = False
    norms: int = 2
    norm_bias: bool = False
    every: int = 0
    output_gate: bool = False
    shared_always: bool = False


FAMILIES: dict[str, Traits] = {
    "deepseek": Traits(),
    "aria_text": Traits(),
    "olmoe": Traits(qk_norm="heads"),
    "flex_olmo": Traits(qk_norm="heads"),
    "granitemoe": Traits(),
    "granitemoeshared": Traits(),
    "granitemoe_swa": Traits(),
    "flint": Traits(qk_norm="dim"),
    "mellum": Traits(qk_norm="dim"),
    "kolibri1": Traits(every=5),
    "phimoe": Traits(bias=True, o_bias=True, norm_bias=True),
    "dots1": Traits(qk_norm="dim", router_bias=True),
    "solar_open": Traits(router_bias=True),
    "hy_v3": Traits(qk_norm="dim", router_bias=True),
    "bailing_moe": Traits(bias_key="use_qkv_bias"),
    "bailing_moe_v2": Traits(bias_key="use_qkv_bias", qk_norm="dim", router_bias=True),
    "sarvam_moe": Traits(bias_key="use_qkv_bias", qk_norm="dim", router_bias=True),
    **dict.fromkeys(
        ("hunyuan_v1_moe", "hunyuan"),
        Traits(qk_norm="dim", qk_norm_key="use_qk_norm", shared_always=True),
    ),
    "step3p7": Traits(qk_norm="dim", router_bias=True),
    "exaone_moe": Traits(qk_norm="dim", router_bias=True, every=4),
    "glm4v_moe_text": Traits(bias=True, router_bias=True),
    "afmoe": Traits(qk_norm="dim", router_bias=True, norms=4, every=4, output_gate=True),
    "cohere2_moe": Traits(tied=True, norms=1, every=4),
}
MODEL_TYPES = tuple(FAMILIES)


def architecture(config: Config) -> Architecture:
    """Read a decoder with experts."""
    traits = FAMILIES[config.text("model_type")]
    norm = traits.qk_norm and config.flag(traits.qk_norm_key, traits.qk_norm_key != "use_qk_norm")
    bias = config.flag(traits.bias_key, traits.bias)
    experts = experts_beside(config, router_bias=traits.router_bias)
    if traits.shared_always and not any(config.has(key) for key in (*SHARED, *SHARED_COUNT)):
        width = config.integer("intermediate_size")
        experts = dataclasses.replace(experts, shared_intermediate_size=width)
    layers: list[Layer] = []
    for window, sparse in zip(
        windows(config, every=traits.every), sparse_layers(config), strict=True
    ):
        attention = grouped_query(
            config,
            kind="sliding" if window else "full",
            window=window,
            bias=bias,
            o_bias=bias and traits.o_bias,
            qk_norm=bool(norm),
            qk_norm_heads=traits.qk_norm == "heads",
            output_gate=traits.output_gate,
        )
        layers.append((attention, experts if sparse else dense(config)))
    return assemble(
        config,
        layers,
        tied=traits.tied,
        norms_per_layer=traits.norms,
        norm_bias=traits.norm_bias,
    )
