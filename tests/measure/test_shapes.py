"""Shapes of a layer on one GPU, and the memory they need."""

from __future__ import annotations

import pytest

from bestserve.catalog import load_model
from bestserve.errors import InfeasibleError, InputError
from bestserve.measure.campaign import check_memory
from bestserve.measure.device_info import DeviceInfo
from bestserve.measure.grid import Grid
from bestserve.measure.session import sweeping_layers
from bestserve.measure.shapes import memory_need, reduced, shard
from bestserve.models.step.sharding import attention_matrices, ffn_matrices

PLAN = [("meta-llama/Llama-3.1-8B", 1), ("Qwen/Qwen3-32B", 4), ("meta-llama/Llama-3.1-70B", 8)]


def test_llama_8b_layer_has_the_published_sizes() -> None:
    # config.json of Llama-3.1-8B: hidden 4096, 32 heads, 8 KV heads, width 14336, 32 layers.
    shape = shard(load_model("meta-llama/Llama-3.1-8B").architecture)
    assert shape.gemms() == {
        "qkv": (6144, 4096),
        "attention_out": (4096, 4096),
        "ffn_up": (28672, 4096),
        "ffn_down": (4096, 14336),
    }
    assert (shape.model_layers, shape.kv_elements_per_token) == (32, 2048)


@pytest.mark.parametrize(("model", "tp"), PLAN)
def test_shards_are_those_of_the_operator_model(model: str, tp: int) -> None:
    arch = load_model(model).architecture
    shape, group = shard(arch, tp), arch.groups[0]
    matrices = [
        *attention_matrices(group.attention, arch.hidden_size, tp),
        *ffn_matrices(group.ffn.intermediate_size, group.ffn.gated, arch.hidden_size, tp),
    ]
    assert sorted(shape.gemms().values()) == sorted((int(m.n), int(m.k)) for m in matrices)
    assert shape.weights == sum(m.elements for m in matrices)


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    arch = load_model("meta-llama/Llama-3.1-8B").architecture
    assert [shard(arch, tp).kv_heads for tp in (1, 8, 16)] == [8, 1, 1]


def test_experts_keep_their_number_and_split_their_width() -> None:
    shape = shard(load_model("mistralai/Mixtral-8x7B-v0.1").architecture, 2)
    assert (shape.experts, shape.top_k, shape.intermediate) == (8, 2, 7168)
    small = reduced(shape)
    assert (small.experts, small.top_k) == (8, 2)
    assert small.heads // small.kv_heads == shape.heads // shape.kv_heads


def test_refusals_name_what_does_not_divide_and_what_is_unsupported() -> None:
    with pytest.raises(InputError, match="tp = 3 does not divide the 32 attention heads"):
        shard(load_model("meta-llama/Llama-3.1-8B").architecture, 3)
    with pytest.raises(InputError, match="mla"):
        shard(load_model("deepseek-ai/DeepSeek-V3").architecture)


def test_memory_is_the_sum_of_its_parts() -> None:
    shape = shard(load_model("meta-llama/Llama-3.1-8B").architecture)
    need = memory_need(shape, layers=4, fmt="bf16", kv_tokens=1000, tokens=1)
    # 4 layers of 218,103,808 matrix elements; 8 KV heads of 128 twice, in 2 bytes.
    assert need.weights == 4 * 218_103_808 * 2
    assert need.kv == 4 * 1000 * 2048 * 2
    assert need.total == need.weights + need.kv + need.workspace
    half = memory_need(shape, layers=4, fmt="fp8", kv_tokens=1000, tokens=1)
    assert half.weights == need.weights // 2
    assert half.kv == need.kv


def test_short_memory_is_refused_with_the_arithmetic() -> None:
    shape = shard(load_model("meta-llama/Llama-3.1-70B").architecture)
    info = DeviceInfo(
        kind="cuda", index=0, name="a small GPU", driver="1", memory=8 * 10**9, free=6 * 10**9,
        cache=40 << 20, processors=50, gpus=1,
    )  # fmt: skip
    with pytest.raises(InfeasibleError, match=r"= weights \d.* \+ KV cache .* 6\.00 GB free"):
        check_memory(shape, Grid(), "bf16", info)


def test_layers_sweep_the_cache() -> None:
    # The output projection of a 70B TP8 shard is 16.8 MB in bf16: six of them exceed 2 · 50 MB.
    shard_70b = shard(load_model("meta-llama/Llama-3.1-70B").architecture, 8)
    assert sweeping_layers(shard_70b, "bf16", 50 * 10**6) == 6
    assert (
        sweeping_layers(shard(load_model("meta-llama/Llama-3.1-8B").architecture), "bf16", 1) == 4
    )
    assert sweeping_layers(shard_70b, "bf16", 10**9) == 16
