"""Step-3.5: sliding layers have more query heads than full ones; experts beside a shared one."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense
from bestserve.models.step.architecture import Architecture, Attention, Ffn

MODEL_TYPES = ("step3p5",)


def architecture(config: Config) -> Architecture:
    """Read a Step-3.5 config; `attention_other_setting` gives the heads of the sliding layers."""
    layers = config.layers()
    types = config.strings("layer_types")[:layers]  # the layers for multi-token prediction follow
    if len(types) < layers:
        raise config.error("layer_types", f"has {len(types)} entries for {layers} hidden layers")
    other = config.part("attention_other_setting")
    window = config.integer("sliding_window")
    kinds = {
        "full_attention": _attention(config, 0),
        "sliding_attention": _attention(other, window),
    }
    unknown = set(types) - set(kinds)
    if unknown:
        raise config.error("layer_types", f"contains {sorted(unknown)[0][:40]!r}")
    experts = Ffn(
        kind="moe",
        intermediate_size=config.integer("moe_intermediate_size"),
        num_experts=config.integer("moe_num_experts"),
        top_k=config.integer("moe_top_k"),
        shared_intermediate_size=config.integer("share_expert_dim", "share_expert_dims"),
        router_bias=config.flag("use_moe_router_bias", False),
    )
    sparse = _sparse_layers(config)
    stack: list[Layer] = [
        (kinds[kind], experts if i in sparse else dense(config)) for i, kind in enumerate(types)
    ]
    gates = 0
    if config.flag("use_head_wise_attn_gate", False):  # one output gate per head and token
        gates = config.integer("hidden_size") * sum(kinds[kind].num_heads for kind in types)
    return assemble(config, stack, tied=False, extra=gates)


def _attention(part: Config, window: int) -> Attention:
    return Attention(
        kind="sliding" if window else "full",
        num_heads=part.integer("num_attention_heads"),
        num_kv_heads=part.integer("num_attention_groups"),
        head_dim=part.integer("head_dim"),
        window=window,
        qk_norm=True,
    )


def _sparse_layers(config: Config) -> frozenset[int]:
    text = config.text("moe_layers_enum")
    try:
        return frozenset(int(number) for number in text.split(","))
    except ValueError:
        raise config.error("moe_layers_enum", "is no comma-separated list of layers") from None
