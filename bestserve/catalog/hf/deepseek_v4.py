"""DeepSeek-V4: one latent for keys and values, of which only the last 128 tokens stay whole.

Older tokens are compressed: one entry for 4 tokens, of which an indexer picks 512 (sparse), or one
for 128 tokens, all of which are read. Hyper-connections replace the residual stream.
"""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, experts_beside
from bestserve.models.step.architecture import Architecture, Attention
from bestserve.models.step.parameters import attention_parameters

MODEL_TYPES = ("deepseek_v4", "deepseek_ref")

SPARSE = 4
"""Compression at which layers have an indexer."""


def architecture(config: Config) -> Architecture:
    """Read a DeepSeek-V4 config; `compress_ratios` or `layer_types` gives each layer's rate."""
    experts = experts_beside(config, router_bias=True)
    layers: list[Layer] = [(_attention(config, rate), experts) for rate in _rates(config)]
    hidden, streams = config.integer("hidden_size"), config.integer("hc_mult", default=4)
    mixing = (2 + streams) * streams * streams * hidden  # twice a layer, and once at the end
    extra = 2 * config.layers() * mixing + streams * streams * hidden
    return assemble(config, layers, tied=False, extra=extra)


def _rates(config: Config) -> tuple[int, ...]:
    count = config.layers()
    ratios = config.values.get("compress_ratios")
    if isinstance(ratios, list):
        if len(ratios) < count or not all(isinstance(r, int) and 0 <= r <= 10**6 for r in ratios):
            raise config.error("compress_ratios", f"is no list of {count} rates")
        return tuple(ratios[:count])  # the layers for multi-token prediction follow
    stated = config.part("compress_rates")
    kinds = {
        "sliding_attention": 0,
        "compressed_sparse_attention": stated.integer(
            "compressed_sparse_attention", default=SPARSE
        ),
        "heavily_compressed_attention": stated.integer("heavily_compressed_attention", default=128),
    }
    types = config.layer_types(kinds)
    if not types:
        raise config.error("compress_ratios", "is missing; is the file complete?")
    return tuple(kinds[kind] for kind in types)


def _attention(config: Config, rate: int) -> Attention:
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    width, rope = config.integer("head_dim"), config.integer("qk_rope_head_dim")
    rank = config.integer("q_lora_rank")
    window = config.integer("sliding_window")
    groups, o_rank = config.integer("o_groups", default=8), config.integer("o_lora_rank")
    sparse = 0 < rate <= SPARSE
    index_heads = config.integer("index_n_heads") if sparse else 0
    index_dim = config.integer("index_head_dim") if sparse else 0
    whole = hidden * rank + rank + rank * heads * width + hidden * width + width + heads
    whole += heads * width * o_rank + groups * o_rank * hidden
    if rate:
        doubled = 2 if sparse else 1
        whole += 2 * hidden * doubled * width + rate * doubled * width + width
    if sparse:
        whole += rank * index_heads * index_dim + hidden * index_heads
        whole += 2 * hidden * 2 * index_dim + rate * 2 * index_dim + index_dim
    bare = Attention(
        kind="mla",
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width,
        v_head_dim=width,
        q_lora_rank=rank,
        kv_lora_rank=width - rope,
        qk_nope_head_dim=width - rope,
        qk_rope_head_dim=rope,
        window=window,
        compress=rate,
        index_dim=index_dim,
        index_topk=window + (config.integer("index_topk") if sparse else 0),
    )
    return dataclasses.replace(bare, extra_parameters=whole - attention_parameters(bare, hidden))
