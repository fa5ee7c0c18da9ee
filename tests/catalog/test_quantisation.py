"""Quantisation as checkpoints state it: every method, every way of naming modules, sizes by hand.

The expected size is counted from the shapes in this file: attention × its bytes + feed-forward ×
its bytes + 2 B × (embedding + head + router); 1 % is left for norms and scales per channel.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bestserve.catalog import load_engine, load_hardware, load_model, model_from_config
from bestserve.catalog.hf.formats.rules import ModuleNames, Rule, runnable
from bestserve.errors import DataError
from bestserve.models.step.device import Parallelism
from bestserve.models.step.memory import memory_plan
from bestserve.specs.model import Model

LAYERS, HIDDEN, WIDTH, EXPERTS, EXPERT = 12, 2048, 6144, 16, 768
HEADS, KV_HEADS, DIM, VOCABULARY = 32, 8, 128, 64_000
DENSE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": DIM,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 65536,
}
MOE: dict[str, Any] = {
    **DENSE,
    "model_type": "qwen3_moe",
    "num_experts": EXPERTS,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": EXPERT,
}
ATTENTION = LAYERS * HIDDEN * DIM * (2 * HEADS + 2 * KV_HEADS)
FEED_FORWARD = {
    "llama": LAYERS * 3 * HIDDEN * WIDTH,
    "qwen3_moe": LAYERS * EXPERTS * 3 * HIDDEN * EXPERT,
}
ENDS = 2 * VOCABULARY * HIDDEN
ROUTER = {"llama": 0, "qwen3_moe": LAYERS * EXPERTS * HIDDEN}

INT4 = 0.5 + 2 / 128
INT4_ZERO = INT4 + 0.5 / 128
NVFP4, MXFP4, MXFP8, BLOCK = 0.5 + 1 / 16, 0.5 + 1 / 32, 1 + 1 / 32, 1 + 4 / 128**2


def read(base: dict[str, Any], section: dict[str, Any], key: str = "quantization_config") -> Model:
    return model_from_config({**base, key: section}, name="mine", where="model config mine.json")


def weights(model: Model) -> float:
    device, engine = load_hardware("h200-sxm").device(), load_engine("vllm")
    plan = memory_plan(model.architecture, device, Parallelism(), model.formats(), engine)
    return plan.weights


def expected(base: dict[str, Any], attention: float, feed_forward: float) -> float:
    kind = base["model_type"]
    rest = 2.0 * (ENDS + ROUTER[kind])
    return ATTENTION * attention + FEED_FORWARD[kind] * feed_forward + rest


def names(*modules: str, layers: int = LAYERS) -> list[str]:
    return [f"model.layers.{i}.{module}" for i in range(layers) for module in modules]


QKVO = tuple(f"self_attn.{m}_proj" for m in "qkvo")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def ct(
    bits: int, kind: str, *, targets: Any = ("Linear",), act: int = 0, **weight: Any
) -> dict[str, Any]:
    group: dict[str, Any] = {
        "targets": list(targets),
        "weights": {"num_bits": bits, "type": kind, **weight},
    }
    if act:
        group["input_activations"] = {"num_bits": act, "type": kind}
    return group


def compressed(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {f"group_{i}": group for i, group in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": found, **more}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AUTO = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}
PACKED = ct(4, "int", strategy="group", group_size=128)
NVFP4_GROUP = ct(4, "float", act=4, strategy="tensor_group", group_size=16)
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}
QUARK_FP4 = {
    "weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"},
    "input_tensors": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32},
}
QUARK_FP8 = {
    "weight": {"dtype": "fp8_e4m3", "qscheme": "per_channel"},
    "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"},
}
HALF_THE_LAYERS = (6 * 2.0 + 6 * INT4_ZERO) / 12

CASES: list[tuple[str, dict[str, Any], dict[str, Any], float, float]] = [
    # FP8 and its relatives: lists of full names, parts of names, patterns
    ("fp8", DENSE, {"quant_method": "fp8"}, 1, 1),
    (
        "fp8 blocks",
        DENSE,
        {"quant_method": "fp8", "weight_block_size": [64, 64]},
        1 + 4 / 64**2,
        1 + 4 / 64**2,
    ),
    (
        "full names",
        DENSE,
        {"quant_method": "fbgemm_fp8", "modules_to_not_convert": names(*QKVO)},
        2,
        1,
    ),
    ("containers", DENSE, {"quant_method": "fp8", "ignored_layers": names("mlp")}, 1, 2),
    (
        "part of the name",
        DENSE,
        {"quant_method": "fp8", "modules_to_not_convert": ["self_attn"]},
        2,
        1,
    ),
    (
        "shell pattern",
        DENSE,
        {"quant_method": "fp8", "ignored_layers": ["model.layers.*.self_attn"]},
        2,
        1,
    ),
    (
        "an expression",
        DENSE,
        {"quant_method": "fp8", "ignored_layers": [r"model\.layers\.\d+\.mlp\..*"]},
        1,
        2,
    ),
    (
        "single layers",
        DENSE,
        {"quant_method": "fp8", "ignored_layers": names("self_attn", "mlp", layers=3)},
        1.25,
        1.25,
    ),
    # layers.1 is not layers.10 and layers.11
    (
        "one layer",
        DENSE,
        {"quant_method": "fp8", "ignored_layers": ["model.layers.1"]},
        13 / 12,
        13 / 12,
    ),
    (
        "router alone",
        MOE,
        {"quant_method": "fp8", "modules_to_not_convert": names("mlp.gate")},
        1,
        1,
    ),
    (
        "experts by container",
        MOE,
        {"quant_method": "fp8", "modules_to_not_convert": names("mlp.experts")},
        1,
        2,
    ),
    (
        "every second expert",
        MOE,
        {
            "quant_method": "fp8",
            "modules_to_not_convert": names(*(f"mlp.experts.{e}" for e in range(0, EXPERTS, 2))),
        },
        1,
        1.5,
    ),
    ("mxfp4 of the experts", MOE, {"quant_method": "mxfp4"}, 2, MXFP4),
    # GPTQ
    ("gptq", DENSE, GPTQ, INT4_ZERO, INT4_ZERO),
    ("gptq 2 bits", DENSE, {**GPTQ, "bits": 2}, 0.25 + 2.25 / 128, 0.25 + 2.25 / 128),
    ("gptq 3 bits", DENSE, {**GPTQ, "bits": 3}, 0.375 + 2.375 / 128, 0.375 + 2.375 / 128),
    ("gptq 8 bits per channel", DENSE, {**GPTQ, "bits": 8, "group_size": -1}, 1, 1),
    ("gptq group 32", DENSE, {**GPTQ, "group_size": 32}, 0.5 + 2.5 / 32, 0.5 + 2.5 / 32),
    ("gptq dynamic skips", DENSE, {**GPTQ, "dynamic": {r"-:.*\.mlp\..*": {}}}, INT4_ZERO, 2),
    (
        "gptq dynamic overrides",
        DENSE,
        {**GPTQ, "dynamic": {r"+:.*\.self_attn\..*": {"bits": 8, "group_size": 64}}},
        1 + 3 / 64,
        INT4_ZERO,
    ),
    (
        "gptq dynamic, first wins",
        DENSE,
        {**GPTQ, "dynamic": {r"-:.*down_proj": {}, r".*mlp.*": {"bits": 8}}},
        INT4_ZERO,
        (2 + 2 * (1 + 3 / 128)) / 3,
    ),
    (
        "gptq dynamic lookahead",
        DENSE,
        {**GPTQ, "dynamic": {r"-:.*\.layers\.\d+\.(?!mlp).*": {}}},
        2,
        INT4_ZERO,
    ),
    (
        "gptq modules in a block",
        DENSE,
        {
            **GPTQ,
            "modules_in_block_to_quantize": [["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]],
        },
        2,
        INT4_ZERO,
    ),
    # AWQ: any part of the text
    (
        "awq",
        DENSE,
        {"quant_method": "awq", "bits": 4, "group_size": 64},
        0.5 + 2.5 / 64,
        0.5 + 2.5 / 64,
    ),
    (
        "awq part",
        MOE,
        {
            "quant_method": "awq",
            "w_bit": 4,
            "q_group_size": 128,
            "modules_to_not_convert": ["attn", "mlp.gate"],
        },
        2,
        INT4_ZERO,
    ),
    (
        "awq matrices",
        DENSE,
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": 128,
            "modules_to_not_convert": ["down_proj"],
        },
        INT4_ZERO,
        (2 + 2 * INT4_ZERO) / 3,
    ),
    # AutoRound
    (
        "auto-round names",
        DENSE,
        {**AUTO, "extra_config": {n: {"bits": 16} for n in names(*QKVO)}},
        2,
        INT4,
    ),
    (
        "auto-round expression",
        DENSE,
        {**AUTO, "extra_config": {".*self_attn.*": {"bits": 8, "group_size": 128}}},
        1 + 2 / 128,
        INT4,
    ),
    ("auto-round asymmetric", DENSE, {**AUTO, "sym": False}, INT4_ZERO, INT4_ZERO),
    (
        "auto-round mxfp4",
        DENSE,
        {**AUTO, "data_type": "mx_fp", "group_size": 32, "act_bits": 4},
        MXFP4,
        MXFP4,
    ),
    ("auto-round blocks", DENSE, {**AUTO, "block_name_to_quantize": "model.layers"}, INT4, INT4),
    # compressed-tensors
    ("ct packed", DENSE, compressed(PACKED, ignore=["lm_head"]), INT4, INT4),
    ("ct int8", DENSE, compressed(ct(8, "int", act=8, strategy="channel")), 1, 1),
    (
        "ct expression",
        MOE,
        compressed(PACKED, ignore=["lm_head", r"re:.*\.mlp\.gate$", "re:.*self_attn.*"]),
        2,
        INT4,
    ),
    ("ct alternatives", DENSE, compressed(PACKED, ignore=[r"re:.*\.(?:q|k|v|o)_proj$"]), 2, INT4),
    (
        "ct class of characters",
        DENSE,
        compressed(PACKED, ignore=[r"re:model\.layers\.\d{1,2}\.self_attn\.[qkvo]_proj"]),
        2,
        INT4,
    ),
    ("ct negative lookahead", DENSE, compressed(PACKED, ignore=[r"re:^(?!.*mlp).*$"]), 2, INT4),
    (
        "ct range of layers",
        DENSE,
        compressed(PACKED, ignore=[r"re:model\.layers\.[0-5]\..*"]),
        (2 + INT4) / 2,
        (2 + INT4) / 2,
    ),
    (
        "ct two groups",
        DENSE,
        compressed(
            ct(8, "float", act=8, targets=["re:.*self_attn.*"]),
            {**NVFP4_GROUP, "targets": ["re:.*mlp.*"]},
        ),
        1,
        NVFP4,
    ),
    (
        "ct name before class",
        DENSE,
        compressed(NVFP4_GROUP, ct(8, "float", act=8, targets=["re:.*down_proj"])),
        NVFP4,
        (1 + 2 * NVFP4) / 3,
    ),
    (
        "ct activations only",
        DENSE,
        compressed({"targets": ["Linear"], "weights": None, "input_activations": {"num_bits": 8}}),
        2,
        2,
    ),
    (
        "ct mxfp8",
        DENSE,
        compressed(ct(8, "float", act=8, strategy="group", group_size=32)),
        MXFP8,
        MXFP8,
    ),
    (
        "ct mxfp4 by its name",
        DENSE,
        compressed(ct(4, "float"), format="mxfp4-pack-quantized"),
        MXFP4,
        MXFP4,
    ),
    (
        "ct fp8 blocks",
        DENSE,
        compressed(ct(8, "float", act=8, strategy="block", block_structure=[128, 128])),
        BLOCK,
        BLOCK,
    ),
    # ModelOpt
    ("modelopt", DENSE, MODELOPT, NVFP4, NVFP4),
    ("modelopt trees", DENSE, {**MODELOPT, "ignore": names("self_attn*")}, 2, NVFP4),
    (
        "modelopt layer 1, not 10",
        DENSE,
        {**MODELOPT, "exclude_modules": ["model.layers.1*"]},
        (2 + 11 * NVFP4) / 12,
        (2 + 11 * NVFP4) / 12,
    ),
    (
        "modelopt stars",
        DENSE,
        {**MODELOPT, "exclude_modules": ["*self_attn*", "lm_head"]},
        2,
        NVFP4,
    ),
    (
        "modelopt expression",
        DENSE,
        {**MODELOPT, "ignore": ["re:.*self_attn.*"]},
        2,
        NVFP4,
    ),
    ("modelopt part", DENSE, {**MODELOPT, "exclude_modules": ["self_attn"]}, 2, NVFP4),
    (
        "modelopt weights only",
        DENSE,
        {"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"},
        BLOCK,
        BLOCK,
    ),
    (
        "modelopt mxfp8",
        DENSE,
        {"quant_method": "modelopt_mxfp8", "quant_algo": "MXFP8"},
        MXFP8,
        MXFP8,
    ),
    (
        "modelopt awq",
        DENSE,
        {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 64},
        0.5 + 2 / 64,
        0.5 + 2 / 64,
    ),
    (
        "modelopt mixed by layer",
        DENSE,
        {
            "quant_method": "modelopt",
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {
                **{n: {"quant_algo": "FP8"} for n in names(*QKVO)},
                **{n: {"quant_algo": "NVFP4", "group_size": 16} for n in names(*MLP)},
            },
        },
        1,
        NVFP4,
    ),
    (
        "modelopt mixed, one part",
        DENSE,
        {
            "quant_method": "modelopt",
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {"model.layers.*.mlp*": {"quant_algo": "W4A16_NVFP4"}},
        },
        2,
        NVFP4,
    ),
    (
        "modelopt mixed by groups",
        MOE,
        {
            "producer": {"name": "modelopt"},
            "quant_algo": "MIXED_PRECISION",
            "config_groups": {
                "a": ct(8, "float", act=8, targets=names("self_attn")),
                "b": {**NVFP4_GROUP, "targets": names("mlp.experts")},
            },
        },
        1,
        NVFP4,
    ),
    # Quark
    ("quark", DENSE, {"quant_method": "quark", "global_quant_config": QUARK_FP4}, MXFP4, MXFP4),
    (
        "quark exclude",
        DENSE,
        {"quant_method": "quark", "global_quant_config": QUARK_FP4, "exclude": ["*self_attn*"]},
        2,
        MXFP4,
    ),
    (
        "quark names",
        DENSE,
        {"quant_method": "quark", "global_quant_config": QUARK_FP8, "exclude": names(*QKVO)},
        2,
        1,
    ),
    (
        "quark expression",
        DENSE,
        {"quant_method": "quark", "global_quant_config": QUARK_FP8, "exclude": ["re:.*mlp.*"]},
        1,
        2,
    ),
    (
        "quark by layer",
        DENSE,
        {
            "quant_method": "quark",
            "global_quant_config": QUARK_FP4,
            "layer_quant_config": {"*self_attn*": QUARK_FP8},
        },
        1,
        MXFP4,
    ),
    # bitsandbytes, HQQ
    (
        "nf4",
        DENSE,
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        0.5625,
        0.5625,
    ),
    (
        "nf4 twice",
        DENSE,
        {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        },
        0.5 + 1 / 64 + 4 / 64 / 256,
        0.5 + 1 / 64 + 4 / 64 / 256,
    ),
    (
        "llm.int8",
        DENSE,
        {
            "quant_method": "bitsandbytes",
            "load_in_8bit": True,
            "llm_int8_skip_modules": ["self_attn", "lm_head"],
        },
        2,
        1,
    ),
    (
        "hqq",
        DENSE,
        {
            "quant_method": "hqq",
            "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}},
            "skip_modules": ["lm_head"],
        },
        0.5625,
        0.5625,
    ),
]


@pytest.mark.parametrize(
    ("base", "section", "attention", "feed_forward"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_weights_by_hand(
    base: dict[str, Any], section: dict[str, Any], attention: float, feed_forward: float
) -> None:
    model = read(base, section)
    assert weights(model) == pytest.approx(expected(base, attention, feed_forward), rel=2e-3)
    assert not any("quantisation" in note for note in model.notes), model.notes


def test_kernels_follow_each_part() -> None:
    both = compressed(
        ct(8, "float", act=8, targets=["re:.*self_attn.*"]),
        {**NVFP4_GROUP, "targets": ["re:.*mlp.*"]},
    )
    model = read(DENSE, both)
    parts = model.formats().parts
    assert (parts.attention.precision, parts.ffn.precision) == ("fp8", "nvfp4")
    weight_only = read(DENSE, compressed(ct(8, "float"))).formats().parts
    assert weight_only.ffn.precision == "w8a16"
    # A precision that the problem states replaces them all.
    assert model.formats(precision="int8").parts.attention.precision == "int8"


def test_the_head_is_quantised_where_the_file_says_so() -> None:
    plain, headed = read(DENSE, GPTQ), read(DENSE, {**GPTQ, "lm_head": True})
    saved = VOCABULARY * HIDDEN * (2 - INT4_ZERO)
    assert weights(plain) - weights(headed) == pytest.approx(saved, rel=1e-6)
    # "all" does not mean the head
    every = read(DENSE, {**GPTQ, "dynamic": {"+:.*": {"bits": 4}}})
    assert weights(every) == pytest.approx(weights(plain))


@pytest.mark.parametrize("key", ["quantization_config", "compression_config", "quant_config"])
def test_the_section_is_found_under_any_key(key: str) -> None:
    inner = compressed(PACKED)
    found = weights(read(DENSE, inner, key))
    assert found == pytest.approx(expected(DENSE, INT4, INT4), rel=2e-3)
    nested = {"model_type": "llava", "text_config": {**DENSE, key: inner}}
    outer = {"model_type": "llava", "text_config": DENSE, key: inner}
    for values in (nested, outer):
        model = model_from_config(values, name="mine", where="mine.json")
        assert weights(model) == pytest.approx(found)


@pytest.mark.parametrize(
    ("file", "section"),
    [
        (
            "hf_quant_config.json",
            {
                "producer": {"name": "modelopt"},
                "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]},
            },
        ),
        ("quantize_config.json", {"bits": 8, "group_size": -1, "desc_act": False}),
        (
            "quant_config.json",
            {"w_bit": 8, "q_group_size": -1, "zero_point": False, "version": "GEMM"},
        ),
    ],
)
def test_the_section_is_found_beside_the_config(
    file: str, section: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    (tmp_path / file).write_text(json.dumps(section))
    assert weights(load_model(tmp_path)) == pytest.approx(expected(DENSE, 1, 1), rel=2e-3)


@pytest.mark.parametrize(
    ("more", "kv"),
    [
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"kv_cache_scheme": "FP8"}, "fp8"),
        ({"kv_cache_quant_algo": "NVFP4"}, "nvfp4"),
        ({"kv_cache_scheme": {"num_bits": 4, "type": "float", "group_size": 16}}, "nvfp4"),
        ({"kv_cache_scheme": None}, "auto"),
    ],
)
def test_kv_cache(more: dict[str, Any], kv: str) -> None:
    model = read(DENSE, {**MODELOPT, **more})
    assert model.kv_cache_dtype == kv
    per_element = {"fp8": 1.0, "nvfp4": 0.5625, "auto": 2.0}[kv]
    assert model.formats().kv_bytes == per_element


def test_quark_keeps_its_cache_format_with_the_key_projection() -> None:
    section = {
        "quant_method": "quark",
        "global_quant_config": QUARK_FP8,
        "layer_quant_config": {
            "*k_proj": {**QUARK_FP8, "output_tensors": {"dtype": "fp8_e4m3"}},
            "*v_proj": {**QUARK_FP8, "output_tensors": {"dtype": "fp8_e4m3"}},
        },
    }
    assert read(DENSE, section).kv_cache_dtype == "fp8"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({**MODELOPT, "ignore": ["model.layers.3.atention"]}, "name no module.*atention"),
        (compressed(PACKED, ignore=["re:.*block_sparse.*"]), "name no module.*block_sparse"),
        ({**GPTQ, "dynamic": {"-:.*feed_forward.*": {}}}, "name no module.*feed_forward"),
        ({"quant_method": "fp8", "ignored_layers": ["re:(a+)+mlp"]}, "not interpreted.*mlp"),
        ({"quant_method": "fp8", "ignored_layers": ["re:mlp("]}, "not interpreted.*mlp"),
        ({"quant_method": "fp8", "surprise": 3}, "not understood.*surprise"),
        ({**MODELOPT, "kv_cache_quant_algo": "FP3"}, "FP3.*not known"),
        (compressed(ct(8, "float", act=8, targets=["LlamaMLP"])), "class 'LlamaMLP'"),
    ],
)
def test_what_is_not_understood_is_said(section: dict[str, Any], said: str) -> None:
    assert any(re.search(said, note) for note in read(DENSE, section).notes)


def test_rules_for_what_is_not_a_linear_layer_are_not_complained_about() -> None:
    harmless = [
        *("lm_head", "model.embed_tokens", "model.norm", "re:.*mlp.gate$", "visual*", "mtp*"),
        *("model.layers.0.input_layernorm", f"model.layers.{LAYERS}.self_attn", "vision_tower"),
    ]
    assert read(DENSE, {**MODELOPT, "ignore": harmless}).notes == ()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"quant_method": "magic"}, "quant_method names 'magic'.*known are .*awq.*quark"),
        ({"quant_method": "modelopt", "quant_algo": "FP2"}, "quant_algo' is 'FP2'; known are FP8,"),
        ({"quant_method": "modelopt"}, "quant_algo' is missing"),
        ({**GPTQ, "bits": 5}, "bits' is 5; known are 2, 3, 4, 8"),
        (compressed(ct(3, "float")), "num_bits' is 3 of type 'float'"),
        (compressed("all"), "expected an object"),  # type: ignore[arg-type]
        ({"quant_method": 7}, "expected a string"),
        ({"quant_method": "fp8", "ignore": "everything"}, "expected a list of strings"),
        (
            {"quant_method": "fp8", "ignore": [f"m{i}" for i in range(20_001)]},
            "lists 20001 modules",
        ),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "two whole numbers"),
        ({"quant_method": "bitsandbytes"}, "4 or 8 bits"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp5"}}}, "'fp5'"),
        ({"bits": 4, "group_size": 64}, "MLX.*would take .* GB"),
        ({"some": "thing"}, "quant_method' is missing"),
    ],
)
def test_refusals_name_the_key(section: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        read(DENSE, section)
    assert str(refused.value).startswith("model config mine.json: key ")


def test_strangers_expressions_are_not_run_if_they_could_take_forever() -> None:
    evil = ["(m+)+(o+)+(.*)+x$", "(a|aa)+" * 25, "((((", "[", "*" * 5000, "(.*a){20}", r"(\w+)*$"]
    assert not any(runnable(expression) for expression in evil)
    assert not runnable(".*a.*b.*c.*d.*e.*f")
    started = time.process_time()
    model = read(DENSE, {**MODELOPT, "ignore": [f"re:{e}" for e in evil] + [".*" * 20 + "!x"]})
    assert time.process_time() - started < 5
    assert any("not interpreted" in note for note in model.notes)


def test_whole_components_are_compared() -> None:
    found = ModuleNames([("model.layers.1.mlp.gate_proj",), ("model.layers.10.mlp.gate_proj",)])
    assert found.covered(Rule("name", "model.layers.1")) == {0}
    assert found.covered(Rule("name", "mlp.gate")) == set()
    assert found.covered(Rule("part", "mlp.gate")) == {0, 1}
    assert found.covered(Rule("glob", "model.layers.1*")) == {0}
    assert found.covered(Rule("glob", "*gate*")) == {0, 1}
    assert found.covered(Rule("match", "gate")) == set()
    assert found.covered(Rule("search", "gate")) == {0, 1}


SHARED = Path(__file__).parents[3] / "shared" / "cases"


def _outside_cases() -> list[tuple[str, float]]:
    readme = SHARED / "README.md"
    if not readme.is_file():
        return []
    rows = re.findall(r"^\| (\w+) \| weights ([\d.]+) GB", readme.read_text(), re.MULTILINE)
    return [(name, float(size)) for name, size in rows]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the outside cases are not beside this checkout")
def test_outside_cases() -> None:
    wrong = {}
    for name, size in _outside_cases():
        if name.startswith("mlx"):
            with pytest.raises(DataError, match="MLX"):
                load_model(SHARED / "configs" / name)
            continue
        found = weights(load_model(SHARED / "configs" / name)) / 1e9
        if abs(found / size - 1) > 0.01:
            wrong[name] = (found, size)
    assert not wrong


HOSTILE: list[Any] = [0, -1, 1.5, "x", [], [None], {"a": 1}, True, float("nan"), 10**30, None]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_broken_sections_are_refused_in_one_line_or_read(case: Any) -> None:
    _, base, section, *_ = case
    for key in section:
        rest = {k: v for k, v in section.items() if k != key}
        for values in (rest, *({**rest, key: value} for value in HOSTILE)):
            try:
                model = read(base, values)
            except DataError as refused:
                message = str(refused)
                assert message.startswith("model config mine.json: key ")
                assert "\n" not in message
                assert len(message) < 700
            else:
                assert weights(model) > 0


AO_GROUP = 0.5 + 4 / 128  # a scale and a zero point of 16 bits each
TORCHAO: dict[str, tuple[dict[str, Any], float, float]] = {
    "class": (
        {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 128}, "_version": 2}},
        AO_GROUP,
        AO_GROUP,
    ),
    "float8 per row": (
        {
            "default": {
                "_type": "Float8DynamicActivationFloat8WeightConfig",
                "_data": {"granularity": [{"_type": "PerRow", "_data": {}}]},
            }
        },
        1.0,
        1.0,
    ),
    "by module": (
        {
            "default": {
                "_type": "ModuleFqnToConfig",
                "_data": {
                    "module_fqn_to_config": {
                        "_default": {
                            "_type": "Int8DynamicActivationIntxWeightConfig",
                            "_data": {
                                "weight_dtype": {"_type": "torch.dtype", "_data": "int4"},
                                "weight_granularity": {
                                    "_type": "PerGroup",
                                    "_data": {"group_size": 32},
                                },
                            },
                        },
                        "re:.*self_attn.*": None,
                        "model.embed_tokens": None,
                    }
                },
            }
        },
        2.0,
        0.5 + 2 / 32,
    ),
}


@pytest.mark.parametrize("case", TORCHAO)
def test_torchao(case: str) -> None:
    kind, attention, feed_forward = TORCHAO[case]
    found = read(DENSE, {"quant_method": "torchao", "quant_type": kind})
    assert weights(found) == pytest.approx(expected(DENSE, attention, feed_forward), rel=0.01)
    assert not [note for note in found.notes if "not understood" in note]


def test_torchao_by_its_older_names() -> None:
    section = {"quant_method": "torchao", "quant_type_kwargs": {"group_size": 128}}
    found = read(DENSE, {**section, "quant_type": "int4_weight_only"})
    assert weights(found) == pytest.approx(expected(DENSE, AO_GROUP, AO_GROUP), rel=0.01)
    with pytest.raises(DataError, match="int3_weight_only"):
        read(DENSE, {**section, "quant_type": "int3_weight_only"})


AQLM_2X8 = 2 * 8 / 8 / 8
RARE: dict[str, tuple[dict[str, Any], float, float]] = {
    "eetq": ({"weights": "int8"}, 1.0, 1.0),
    "experts_int8": ({}, 2.0, 1.0),
    "aqlm": (
        {"in_group_size": 8, "out_group_size": 1, "num_codebooks": 2, "nbits_per_codebook": 8},
        AQLM_2X8,
        AQLM_2X8,
    ),
    "w4afp8": ({"group_size": 128}, BLOCK, INT4),
    "w8a8_int8": ({}, 1.0, 1.0),
    "ptpc_fp8": ({}, 1.0, 1.0),
    "nvfp4": ({}, NVFP4, NVFP4),
    "fp_quant": ({"forward_dtype": "mxfp4"}, MXFP4, MXFP4),
    "quanto": ({"weights": "float8"}, 1.0, 1.0),
    "bitnet": ({"linear_class": "bitlinear", "quantization_mode": "offline"}, 0.25, 0.25),
    "qqq": ({"wbits": 4, "group_size": 128}, INT4, INT4),
}


@pytest.mark.parametrize("method", RARE)
def test_rare_methods(method: str) -> None:
    settings, attention, feed_forward = RARE[method]
    found = read(MOE, {"quant_method": method, **settings})
    assert weights(found) == pytest.approx(expected(MOE, attention, feed_forward), rel=0.01)
    assert not [note for note in found.notes if "not understood" in note]


def test_codebooks_are_counted() -> None:
    section = {"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16}
    found = read(DENSE, section)
    codebooks = 7 * LAYERS * 2.0 * 2**16 * 8
    assert weights(found) == pytest.approx(expected(DENSE, 0.25, 0.25) + codebooks, rel=0.01)


def test_mlx_is_refused_with_both_sizes() -> None:
    own, kept = 0.5 + 4 / 64, 2.0
    inner = (ATTENTION + FEED_FORWARD["llama"]) * own / 1e9
    sizes = f"{inner + ENDS * own / 1e9:.2f} GB .{inner + ENDS * kept / 1e9:.2f} GB with embedding"
    with pytest.raises(DataError, match=sizes):
        read(DENSE, {"bits": 4, "group_size": 64}, key="quantization")
