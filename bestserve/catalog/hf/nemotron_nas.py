"""Llama-Nemotron (Super 49B, Ultra 253B): a Llama whose blocks differ, some without attention."""

from __future__ import annotations

from collections.abc import Mapping

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, grouped_query
from bestserve.models.step.architecture import NO_ATTENTION, NO_FFN, Architecture, Attention, Ffn

MODEL_TYPES = ("nemotron-nas", "deci")


def architecture(config: Config) -> Architecture:
    """Read the `block_configs` of a searched Llama, one per layer."""
    blocks = config.values.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != config.layers():
        raise config.error("block_configs", f"is no list of {config.layers()} blocks")
    layers: list[Layer] = []
    for number, block in enumerate(blocks):
        if not isinstance(block, Mapping):
            raise config.error("block_configs", f"has no object at {number}")
        own = Config(block, config.where, f"{config.prefix}block_configs.{number}.")
        layers.append((_attention(config, own.part("attention")), _ffn(config, own.part("ffn"))))
    return assemble(config, layers, tied=False)


def _attention(config: Config, own: Config) -> Attention:
    if own.flag("no_op", False):
        return NO_ATTENTION
    if own.flag("replace_with_linear", False):
        # One square matrix instead of attention; it keeps nothing of the sequence.
        hidden = config.integer("hidden_size")
        return Attention(
            kind="none", num_heads=0, num_kv_heads=0, head_dim=0, extra_parameters=hidden * hidden
        )
    heads = config.integer("num_attention_heads")
    shared = own.integer("n_heads_in_group")
    values = {**config.values, "num_key_value_heads": heads // shared}
    return grouped_query(Config(values, config.where, config.prefix))


def _ffn(config: Config, own: Config) -> Ffn:
    if own.flag("no_op", False):
        return NO_FFN
    hidden = config.integer("hidden_size")
    if own.flag("replace_with_linear", False):
        return Ffn(kind="dense", intermediate_size=-(-hidden // 3))  # as many weights as one matrix
    width = own.integer("intermediate_size", default=0, minimum=0)
    if not width:
        width = int(2 * own.number("ffn_mult") * hidden / 3)
        width = 256 * -(-width // 256)
    return Ffn(kind="dense", intermediate_size=width)
