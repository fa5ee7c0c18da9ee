"""MiMo-V2-Flash: values narrower than keys, sliding layers with heads of their own, experts."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, experts_beside, sparse_layers
from bestserve.models.step.architecture import Architecture, Attention

MODEL_TYPES = ("mimo_v2_flash", "mimo_v2")


def architecture(config: Config) -> Architecture:
    """Read a MiMo-V2 config; `hybrid_layer_pattern` (1) or `layer_types` says which slide."""
    full, sliding = _attention(config, ""), _attention(config, "swa_")
    pattern = config.values.get("hybrid_layer_pattern")
    if isinstance(pattern, list):
        if len(pattern) != config.layers():
            raise config.error("hybrid_layer_pattern", f"has {len(pattern)} entries")
        slides = [bool(entry) for entry in pattern]
    else:
        kinds = {"full_attention": False, "sliding_attention": True}
        slides = [kinds[kind] for kind in config.layer_types(kinds)]
        if not slides:
            raise config.error("hybrid_layer_pattern", "is missing; is the file complete?")
    experts = experts_beside(config, router_bias=True)
    layers: list[Layer] = [
        (sliding if slide else full, experts if sparse else dense(config))
        for slide, sparse in zip(slides, sparse_layers(config), strict=True)
    ]
    return assemble(config, layers, tied=False)


def _attention(config: Config, prefix: str) -> Attention:
    sliding = prefix != ""

    def either(key: str) -> int:
        return config.integer(prefix + key, key)

    return Attention(
        kind="sliding" if sliding else "full",
        num_heads=either("num_attention_heads"),
        num_kv_heads=either("num_key_value_heads"),
        head_dim=either("head_dim"),
        v_head_dim=either("v_head_dim"),
        window=config.integer("sliding_window", "sliding_window_size") if sliding else 0,
        sinks=config.flag("add_swa_attention_sink_bias", True) if sliding else False,
    )
