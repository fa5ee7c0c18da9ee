"""Nothing is passed over in silence: odd keys and words of a config are named in a note."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from bestserve.catalog import model_from_config
from bestserve.errors import DataError

BASE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 64_000,
    "max_position_embeddings": 65536,
}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
SECTIONS: dict[str, dict[str, Any]] = {
    "fp8": {"weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "gptq": {"bits": 4, "group_size": 128, "dynamic": {"+:.*up_proj": {"bits": 8}}},
    "awq": {"bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "auto-round": {
        "bits": 4,
        "group_size": 128,
        "sym": True,
        "extra_config": {"model.layers.0.mlp.up_proj": {"bits": 16}},
    },
    "compressed-tensors": {
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
        "format": "pack-quantized",
        "ignore": ["lm_head"],
    },
    "modelopt": {
        "quant_algo": "MIXED_PRECISION",
        "quantized_layers": {"model.layers.0.mlp.up_proj": {"quant_algo": "FP8"}},
    },
    "quark": {"global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}}},
    "torchao": {
        "quant_type": {
            "default": {
                "_type": "Int4WeightOnlyConfig",
                "_data": {"group_size": 128},
                "_version": 1,
            }
        }
    },
    "hqq": {"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}
NAMES = ("dynamic", "extra_config", "config_groups", "quantized_layers")


def settings(section: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of settings in a section, those that list names left out."""
    yield section
    for key, value in section.items():
        for inner in value.values() if key in NAMES else [value]:
            if isinstance(inner, dict):
                yield from settings(inner)


def notes(**keys: Any) -> str:
    return "; ".join(model_from_config({**BASE, **keys}, name="m", where="m.json").notes)


def said(config: dict[str, Any]) -> str:
    """The refusal of a config, or its notes."""
    try:
        return "; ".join(model_from_config(config, name="m", where="m.json").notes)
    except DataError as refused:
        return str(refused)


@pytest.mark.parametrize("method", SECTIONS)
def test_every_odd_key_of_a_quantisation_section_is_named(method: str) -> None:
    section = {"quant_method": method, **SECTIONS[method]}
    assert "not understood" not in notes(quantization_config=section)
    rng = random.Random(method)
    for place in range(len(list(settings(section)))):
        word = "".join(rng.choices("abcdefghijklmnop", k=12))
        odd = copy.deepcopy(section)
        list(settings(odd))[place][word] = rng.choice([1, "x", None, [2], {"bits": 4}])
        assert word in notes(quantization_config=odd)


@pytest.mark.parametrize("key", ["quantisation_config", "quantization_configs", "my_quantization"])
def test_a_section_under_an_unknown_key_is_named(key: str) -> None:
    assert f"{key} is not understood" in notes(**{key: {"quant_method": "fp8"}})


@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
def test_every_odd_key_of_rope_scaling_is_named(section: str) -> None:
    plain = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 65536}
    assert not notes(**{section: plain})
    assert f"{section}.odd is not" in notes(**{section: {**plain, "odd": 1}})
    assert f"{section}.inner is not" in notes(**{section: {**plain, "inner": {"a": 1}}})
    by_kind = {"full_attention": plain, "sliding_attention": {"rope_type": "default", "odd": 1}}
    assert f"{section}.sliding_attention.odd is not" in notes(**{section: by_kind})
    assert "'strange' is not understood" in notes(**{section: {"rope_type": "strange"}})


def test_every_odd_layer_type_is_named() -> None:
    kinds = ["full_attention", "mystery_attention", "full_attention", "full_attention"]
    for model_type in ("qwen3", "qwen3_moe", "glm4_moe", "mixtral", "gpt_oss", "llama", "olmo3"):
        config = {
            **BASE,
            "model_type": model_type,
            "layer_types": kinds,
            "head_dim": 64,
            "num_experts": 8,
            "num_local_experts": 8,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 512,
            "sliding_window": 128,
        }
        assert "mystery_attention" in said(config), model_type
