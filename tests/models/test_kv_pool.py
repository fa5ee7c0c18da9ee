"""The cache in groups of blocks, by hand, and against public start-ups."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.catalog.engines import preset_for
from bestserve.models.step.architecture import Attention, Ffn, LayerGroup
from bestserve.models.step.device import Parallelism
from bestserve.models.step.kv_pool import request_bytes
from bestserve.models.step.memory import kv_bytes_of_layer, memory_plan
from bestserve.models.step.sharding import attention_matrices

FFN = Ffn(kind="dense", intermediate_size=64)
FULL = Attention(kind="full", num_heads=8, num_kv_heads=4, head_dim=64)
TOKEN = 4 * 2 * 64 * 2.0  # bytes of one token in one layer
VLLM = replace(load_engine("vllm"), max_num_batched_tokens=1000)


def layers(*kinds: tuple[int, Attention]) -> tuple[tuple[LayerGroup, float], ...]:
    groups = (LayerGroup(count=n, attention=kind, ffn=FFN) for n, kind in kinds)
    return tuple((group, float(group.count)) for group in groups)


def sliding(window: int) -> Attention:
    return replace(FULL, kind="sliding", window=window)


def test_full_and_chunked_layers_keep_every_token() -> None:
    chunked = replace(FULL, kind="chunked", window=100)
    held = request_bytes(layers((3, FULL), (9, chunked)), 5000, 2.0, 1, VLLM)
    assert held == pytest.approx(12 * 5000 * TOKEN)


def test_windows_reach_a_step_ahead_in_padded_groups() -> None:
    """Gemma 3 27B's shape: 52 sliding and 10 full layers are 6 + 1 groups of 10."""
    held = request_bytes(layers((52, sliding(101)), (10, FULL)), 8000, 2.0, 1, VLLM)
    assert held == pytest.approx(10 * TOKEN * (8000 + 6 * (100 + 1000 + 16)))
    short = request_bytes(layers((52, sliding(101)), (10, FULL)), 500, 2.0, 1, VLLM)
    assert short == pytest.approx(10 * TOKEN * (500 + 6 * (500 + 16)))


def test_kinds_of_nearly_equal_number_share_the_larger_size() -> None:
    held = request_bytes(layers((11, sliding(101)), (10, FULL)), 8000, 2.0, 1, VLLM)
    assert held == pytest.approx(11 * TOKEN * (8000 + 1100 + 16))


def test_all_layers_slide_without_groups() -> None:
    held = request_bytes(layers((8, sliding(101))), 8000, 2.0, 1, VLLM)
    assert held == pytest.approx(8 * TOKEN * 1100)


def test_uneven_pages_hold_everything_until_they_share_groups() -> None:
    wide = replace(FULL, head_dim=128)
    kinds = layers((6, sliding(101)), (2, wide))
    before = request_bytes(kinds, 8000, 2.0, 1, VLLM)
    assert before == pytest.approx(8000 * (6 * TOKEN + 2 * 2 * TOKEN))
    after = request_bytes(kinds, 8000, 2.0, 1, replace(VLLM, kv_uneven_pages=True))
    # Blocks of the wide layers' page: 16 of its tokens, 32 of the others'.
    blocks = 8000 / 16 + 3 * (np.ceil(1100 / 32) + 1)
    assert after == pytest.approx(blocks * 2 * (2 * TOKEN) * 16)


def test_a_state_takes_a_block_that_grows_to_hold_it() -> None:
    state = Attention(
        kind="linear",
        num_heads=8,
        num_kv_heads=8,
        head_dim=64,
        linear_key_heads=8,
        linear_value_heads=8,
        linear_key_dim=64,
        linear_value_dim=64,
    )
    size = 8 * 64 * 64 * 4.0
    block = 16 * np.ceil(size / (16 * TOKEN))
    held = request_bytes(layers((9, state), (3, FULL)), 8000, 2.0, 1, VLLM)
    assert held == pytest.approx(3 * block * TOKEN * (np.ceil(8000 / block) + 3))
    alone = request_bytes(layers((9, state)), 8000, 2.0, 1, VLLM)
    assert alone == pytest.approx(9 * size)


def test_a_compressed_latent_grows_by_its_rate() -> None:
    v4 = Attention(
        kind="mla", num_heads=8, num_kv_heads=8, head_dim=64, kv_lora_rank=448,
        qk_rope_head_dim=64, window=128, compress=128,
    )  # fmt: skip
    grown = request_bytes(layers((4, v4)), 128_000, 2.0, 1, replace(VLLM, kv_groups=False))
    assert grown == pytest.approx(4 * 1024.0 * (128 + 1000))


def test_presets_of_versions() -> None:
    versions = ("0.6.3", "v0.11.0", "0.15", "0.17.1", "0.20", "0.27", "0.28.0", "0.33.0")
    assert [preset_for("vllm", v) for v in versions] == [
        *("vllm-v0", "vllm-0.11", "vllm-0.15", "vllm", "vllm-0.20", "vllm-0.21"),
        *("vllm-0.28", "vllm-0.28"),
    ]
    assert preset_for("sglang", "0.5.3") == "sglang"
    assert preset_for("vllm", "nightly") == "vllm"


ROOT = Path(__file__).parents[2]


def test_public_start_ups() -> None:
    path = ROOT / "validation" / "kv_capacity.py"
    spec = importlib.util.spec_from_file_location("kv_capacity", path)
    assert spec is not None
    assert spec.loader is not None
    report = importlib.util.module_from_spec(spec)
    sys.modules["kv_capacity"] = report
    spec.loader.exec_module(report)
    found = report.starts()
    errors = np.abs([start.error for start in found])
    median, ninety, largest = report.GOAL
    assert len(errors) >= 17
    assert np.median(errors) < median
    assert np.percentile(errors, 90) < ninety
    assert errors.max() < largest
    later = report.checked()
    unseen = np.abs([start.error for start in later if not start.row["informed"]])
    assert len(unseen) >= 7
    assert np.median(unseen) < median
    assert np.percentile(unseen, 90) < ninety
    assert all(start.row["source"] for start in later)
    assert (ROOT / "validation" / "kv_capacity.md").read_text() == report.table(found, later)


def test_towers_are_held_by_each_gpu() -> None:
    assert load_model("google/gemma-3-4b-it").architecture.tower_parameters > 4e8


def test_layers_that_borrow_keep_nothing() -> None:
    """Gemma for phones: the last layers read what earlier ones cached, on any engine."""
    borrowing = replace(FULL, borrows_kv=True)
    held = request_bytes(layers((6, FULL), (4, borrowing)), 5000, 2.0, 1, VLLM)
    assert held == pytest.approx(6 * 5000 * TOKEN)
    assert kv_bytes_of_layer(borrowing, 2.0, 5000) == 0.0
    own, borrowed = attention_matrices(FULL, 512, 1), attention_matrices(borrowing, 512, 1)
    assert own[0].n - borrowed[0].n == 2 * 4 * 64


def test_a_model_of_states_alone_holds_sequences_of_any_length() -> None:
    state = Attention(
        kind="linear", linear_form="mamba1", num_heads=8, num_kv_heads=0, head_dim=64,
        linear_value_heads=8, linear_value_dim=64, linear_key_dim=16, linear_conv=4,
    )  # fmt: skip
    short, long = (request_bytes(layers((6, state)), n, 2.0, 1, VLLM) for n in (10, 100_000))
    assert short == long > 0


def test_communicators_take_what_the_link_is_like() -> None:
    """On H100 2.1 GiB outside PyTorch, on A100 half, over PCIe as on one GPU."""
    model, engine = load_model("Qwen/Qwen3-8B"), load_engine("vllm")
    reserve = {}
    for name in ("h100-sxm", "a100-80gb-sxm", "l40s"):
        device = load_hardware(name).device()
        plans = [
            memory_plan(model.architecture, device, Parallelism(tp=tp), model.formats(), engine)
            for tp in (1, 2)
        ]
        reserve[name] = plans[1].reserve - plans[0].reserve
    assert reserve["h100-sxm"] > reserve["a100-80gb-sxm"] > reserve["l40s"] == 0


def test_sides_of_mxfp4_experts_are_padded() -> None:
    """gpt-oss-120b loads 65.97 GiB (vLLM issues 23278 and 27508), 20b 13.72 (a public log)."""
    device, engine = load_hardware("h100-sxm").device(), load_engine("vllm")
    for name, loaded in (("openai/gpt-oss-120b", 65.97), ("openai/gpt-oss-20b", 13.72)):
        model = load_model(name)
        plan = memory_plan(model.architecture, device, Parallelism(), model.formats(), engine)
        assert plan.weights / 2**30 == pytest.approx(loaded, rel=0.01)


def test_sglang_forms_its_share_after_the_context() -> None:
    """16.46 GiB of cache on 4 H100 at 0.93 (vLLM issue 21348)."""
    model, device = load_model("Qwen/Qwen3-235B-A22B"), load_hardware("h100-sxm").device()
    engine = replace(load_engine("sglang"), gpu_memory_utilization=0.93)
    formats = model.formats(precision="fp8")
    plan = memory_plan(model.architecture, device, Parallelism(tp=4), formats, engine)
    assert plan.kv_bytes / 2**30 == pytest.approx(16.46, rel=0.03)
    assert "reserve" in plan.explain()
