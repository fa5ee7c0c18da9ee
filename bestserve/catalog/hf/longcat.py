"""LongCat-Flash: two latent attentions and two dense parts a layer, experts beside them.

Each layer is counted as two, the experts with the first. Zero-computation experts hold no weights;
they are left out, so that fewer of a token's `moe_topk` experts compute.
"""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.deepseek import latent
from bestserve.catalog.hf.layers import Layer, assemble
from bestserve.models.step.architecture import NO_ATTENTION, Architecture, Ffn

MODEL_TYPES = ("longcat_flash",)


def architecture(config: Config) -> Architecture:
    """Read a LongCat-Flash config."""
    attention = latent(config)
    dense = Ffn(kind="dense", intermediate_size=config.integer("ffn_hidden_size"))
    number = config.integer("n_routed_experts")
    empty = config.integer("zero_expert_num", default=0, minimum=0)
    share = number / (number + empty)
    experts = Ffn(
        kind="moe",
        intermediate_size=config.integer("expert_ffn_hidden_size"),
        num_experts=number,
        top_k=max(1, round(config.integer("moe_topk") * share)),
        router_bias=True,
    )
    one: list[Layer] = [(attention, dense), (attention, dense), (NO_ATTENTION, experts)]
    return assemble(config, one * config.layers(), tied=False)
