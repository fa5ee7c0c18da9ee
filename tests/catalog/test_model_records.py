"""Every bundled model, found by listing the folder: parameter count, provenance, origin."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bestserve.catalog import list_models, load_model, model_from_config
from bestserve.catalog.folders import package_folder
from bestserve.catalog.hf import families
from bestserve.models.step.architecture import Architecture
from bestserve.specs.model import Model

NAMES = list_models()
REQUIRED_NAMES = {
    *("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-70b-hf", "meta-llama/Llama-3.1-8B"),
    *("meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-405B", "meta-llama/Llama-3.2-1B"),
    *("meta-llama/Llama-4-Scout-17B-16E", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-72B"),
    *("Qwen/Qwen3-32B", "Qwen/Qwen3-235B-A22B", "Qwen/Qwen3.5-397B-A17B"),
    *("mistralai/Mistral-7B-v0.3", "mistralai/Mixtral-8x7B-v0.1", "google/gemma-2-27b"),
    *("google/gemma-3-27b-it", "google/gemma-4-26B-A4B-it", "microsoft/phi-4"),
    *("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3.2", "openai/gpt-oss-120b"),
    *("moonshotai/Kimi-K2-Instruct", "MiniMaxAI/MiniMax-M2", "zai-org/GLM-4.5", "zai-org/GLM-5"),
    *("facebook/opt-13b", "facebook/opt-175b"),
}


def raw(name: str) -> dict[str, Any]:
    path = package_folder("models") / name.replace("/", "--", 1) / "config.json"
    return json.loads(path.read_text())


def test_the_models_people_deploy_are_there() -> None:
    assert len(NAMES) >= 60
    assert set(NAMES) >= REQUIRED_NAMES


# Types without a record or a count of their own: the same lines read a counted neighbour, or they
# are among the published counts below.
SAME = {
    *("solar", "xverse", "orion", "deepseek", "aria_text"),
    *("aquila", "baichuan", "internlm", "internlm2", "minicpm", "chatglm", "mimo", "glm46v_text"),
    *("glm4v_text", "glm4v_moe_text", "exaone4_5_text", "phi3_v", "phi4mm", "phi4_multimodal"),
    *("bailing_moe", "bailing_moe_v2", "hunyuan", "step3p7", "minimax_m1", "minimax_text_01"),
    *("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "qwen3_omni_moe_text"),
    *("qwen3_vl_text", "qwen3_vl_moe_text", "mistral4", "deepseek_ref", "longcat_flash", "dbrx"),
    *("minimax_m3_vl_text", "mimo_v2", "deci", "ernie4_5_moe_vl"),
}


def test_every_bundled_reader_has_a_bundled_record() -> None:
    read = {raw(name)["model_type"] for name in NAMES}
    counted = json.loads(Path(__file__).with_name("parameters_by_type.json").read_text())
    assert set(families()) - read - set(counted) == SAME


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_within_a_percent_of_the_published_one(name: str) -> None:
    model = load_model(name)
    assert model.published is not None, "a bundled record states its published count"
    assert model.published.source
    assert model.parameters_as_published() == pytest.approx(model.published.parameters, rel=0.01)
    if model.published.elsewhere:
        # What is counted elsewhere must not be what makes a wrong count fit.
        assert model.published.elsewhere_is
        assert model.published.elsewhere < 0.04 * model.published.parameters


# Total and active parameters that publishers state to four digits: a stricter test of the
# operators' shapes than the 1 % above. OpenAI 2025, gpt-oss model card, arXiv:2508.10925, table 1
# (active without embedding, with head); Gemma Team 2024, arXiv:2408.00118, table 2.
EXACT = {
    "openai/gpt-oss-120b": (116.83e9, 5.13e9),
    "openai/gpt-oss-20b": (20.91e9, 3.61e9),
    "google/gemma-2-9b": (9_241_705_984 / 1, 9_241_705_984 / 1),
}


@pytest.mark.parametrize("name", EXACT)
def test_counts_stated_to_four_digits(name: str) -> None:
    counts = load_model(name).parameters()
    total, active = EXACT[name]
    assert counts.total == pytest.approx(total, rel=5e-4)
    assert counts.active == pytest.approx(active, rel=1.5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_provenance_and_shapes(name: str) -> None:
    model = load_model(name)
    assert model.record == model.name == name
    assert "config.json" in model.source or "arXiv" in model.source
    assert model.max_position_embeddings >= 2048
    counts = model.parameters()
    assert 0 < counts.active <= counts.total
    assert model.formats().weights in ("bf16", "fp8", "fp8_block")
    for group in model.architecture.groups:
        assert group.count > 0
        assert (group.ffn.kind == "moe") == (group.ffn.num_experts > 0)
        local = group.attention.kind in ("sliding", "chunked") or group.attention.compress >= 0
        assert local == (group.attention.window > 0)
        assert group.ffn.top_k <= group.ffn.num_experts


def test_no_name_is_claimed_twice() -> None:
    claimed: dict[str, str] = {}
    for name in NAMES:
        about = raw(name)["_bestserve"]
        for spelling in (name, *about.get("aliases", ()), *about.get("variants", ())):
            assert spelling.lower() not in claimed, f"{spelling}: {name} and {claimed}"
            claimed[spelling.lower()] = name


def test_a_model_survives_json() -> None:
    for name in ("Qwen/Qwen3.5-35B-A3B", "deepseek-ai/DeepSeek-V3.2"):
        model = load_model(name)
        assert Model.model_validate_json(model.model_dump_json()) == model


FORMATS = {
    "deepseek-ai/DeepSeek-V3": ("fp8_block", "fp8_block"),
    "openai/gpt-oss-120b": ("bf16", "mxfp4"),
    "moonshotai/Kimi-K2.5": ("bf16", "int4"),
    "meta-llama/Llama-3.1-70B": ("bf16", "bf16"),
    "mistralai/Ministral-3-14B-Instruct-2512": ("fp8", "fp8"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_native_formats(name: str) -> None:
    model = load_model(name)
    formats = model.formats()
    assert (formats.weights, formats.experts) == FORMATS[name]
    assert formats.kv_bytes == 2.0
    assert model.formats(kv_cache_dtype="fp8").kv_bytes == 1.0
    assert model.formats(precision="fp8").experts == "fp8"


def test_attention_has_a_format_of_its_own() -> None:
    """Kimi K2.5 in NVFP4 keeps attention, most of its dense weights, in bf16."""
    kimi = load_model("nvidia/Kimi-K2.5-NVFP4")
    assert (kimi.attention, kimi.weights, kimi.experts) == ("bf16", "nvfp4", "nvfp4")
    assert kimi.formats().parts.attention.precision == "bf16"
    assert kimi.formats().parts.ffn.precision == "nvfp4"
    gemma = load_model("nvidia/Gemma-4-31B-IT-NVFP4")
    assert (gemma.attention, gemma.weights) == ("bf16", "nvfp4")
    assert gemma.formats().kv_bytes == 1.0


def test_known_architectures_in_detail() -> None:
    """Facts of the models' reports that a wrong reader would miss."""
    (llama,) = load_model("meta-llama/Llama-3.1-70B").architecture.groups
    assert (llama.count, llama.attention.num_kv_heads, llama.attention.head_dim) == (80, 8, 128)
    dense, moe = load_model("deepseek-ai/DeepSeek-V3").architecture.groups
    assert (dense.count, moe.count) == (3, 58)
    assert (moe.ffn.num_experts, moe.ffn.top_k) == (256, 8)
    assert moe.ffn.shared_intermediate_size == 2048
    assert (moe.attention.kv_lora_rank, moe.attention.qk_rope_head_dim) == (512, 64)
    sliding, full = load_model("openai/gpt-oss-120b").architecture.groups
    assert (sliding.count, full.count, sliding.attention.window) == (18, 18, 128)
    linear, full = load_model("Qwen/Qwen3-Next-80B-A3B-Instruct").architecture.groups
    assert (linear.count, full.count) == (36, 12)
    assert full.attention.output_gate
    local, whole = load_model("google/gemma-3-27b-it").architecture.groups
    assert (local.count, whole.count, local.attention.window) == (52, 10, 1024)
    scout = load_model("meta-llama/Llama-4-Scout-17B-16E").architecture.groups
    assert {g.attention.kind: g.count for g in scout} == {"chunked": 36, "full": 12}
    v32 = load_model("deepseek-ai/DeepSeek-V3.2").architecture.groups[1].attention
    assert (v32.index_heads, v32.index_dim, v32.index_topk) == (64, 128, 2048)
    glm52 = load_model("zai-org/GLM-5.2").architecture.groups
    assert sum(g.count for g in glm52 if g.attention.index_heads) == 21
    assert all(g.attention.index_topk == 2048 for g in glm52)
    step = load_model("stepfun-ai/Step-3.5-Flash").architecture.groups
    assert {(g.attention.kind, g.attention.num_heads) for g in step} == {
        ("full", 64),
        ("sliding", 96),
    }


# Published counts of models beside the checkout that have no record, "B" of their cards or names:
# DeepSeek-V4 (284 B, 1.6 T), MiniMax M3 (428 B with its tower), MiMo-V2-Flash (309 B), Kimi K3
# (2.8 T), Nemotron 3 (31.6, 120, 550 B), Nemotron-H 56 B and Super 49 B.
PUBLISHED_ELSEWHERE = {
    "DeepSeek-V4-Flash": (284e9, 0.01),
    "DeepSeek-V4-Pro": (1.6e12, 0.02),
    "MiniMax-M3": (428e9, 0.01),
    "MiMo-V2-Flash": (309e9, 0.01),
    "Kimi-K3": (2.8e12, 0.01),
    "Nemotron-3-Nano-30B": (31.6e9, 0.01),
    "Nemotron-3-Super-120B": (120.6e9, 0.01),
    "Nemotron-3-Ultra-550B": (550e9, 0.01),
    "Nemotron-H-56B": (56e9, 0.01),
    "Nemotron-Super-49B": (49.9e9, 0.01),
}
WITHOUT_RECORD = (
    "DeepSeek-V4-Pro",
    "Kimi-K3",
    "Super-120B",
    "MiMo-7B",
    "Step-3.7",
    "3.5-Lightning",
)


def without_towers(model: Model) -> Architecture:
    return dataclasses.replace(model.architecture, tower_parameters=0, vision=None)


def test_configs_beside_the_checkout_read_like_the_records_cut_from_them(shared: Path) -> None:
    """Full files and reduced records give the same architecture; the rest its published count."""
    by_shape = {without_towers(load_model(name)) for name in NAMES}
    read = 0
    for path in sorted((shared / "model_configs").glob("*_config.json")):
        if "hf_quant" in path.name:
            continue
        name = path.name.removesuffix("_config.json")
        model = model_from_config(json.loads(path.read_text()), name=name, where=name)
        assert not any("quantisation rules" in note for note in model.notes), (name, model.notes)
        for family, (published, within) in PUBLISHED_ELSEWHERE.items():
            if family in name:
                assert model.parameters().total == pytest.approx(published, rel=within), name
        if not any(family in name for family in WITHOUT_RECORD):
            assert without_towers(model) in by_shape, name
        read += 1
    assert read > 70
