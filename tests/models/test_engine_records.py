"""Engine presets: every bundled record is complete and sourced; bad ones are refused in a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bestserve.catalog import engine_record, list_engines, load_engine, load_hardware
from bestserve.catalog.engines import OPTIONAL, SPLIT, UNITS
from bestserve.errors import DataError, UnknownNameError
from bestserve.models.step.device import Device


@pytest.mark.parametrize("name", list_engines())
def test_every_preset_conforms(name: str) -> None:
    record = engine_record(name)
    constants = record.constants
    assert constants.name == name
    assert record.title
    assert constants.phi >= 1
    assert constants.phi_moe >= 1
    assert 0 < constants.gamma <= 1.5
    assert constants.a_step < 0.01
    assert constants.max_num_seqs <= constants.max_num_batched_tokens
    figures = [row for row in record.rows if row.unit]
    assert {row.field for row in figures} >= set(UNITS) - set(OPTIONAL)
    for row in figures:
        assert row.kind in ("datasheet", "measured", "derived", "assumed", "secondary"), row
        assert len(row.source) > 5, row


def test_presets_of_today_and_of_2025_differ_in_host_time() -> None:
    today, last_year = load_engine("vllm"), load_engine("vllm-0.11")
    assert today.a_step < last_year.a_step
    assert today.a_seq < last_year.a_seq
    own, *inherited = last_year.moe_kernels
    replaced = own.precision, own.generation, own.words
    kept = [c for c in today.moe_kernels if (c.precision, c.generation, c.words) != replaced]
    assert inherited == kept
    assert len(kept) == len(today.moe_kernels) - 1
    assert own.kernel.tile == 128  # every expert's rows are padded to a tile
    assert today.moe_kernel("fp8_block", "hopper").tile == 0
    assert not load_engine("vllm-eager").cuda_graphs


def test_engines_differ_where_their_schedulers_do() -> None:
    assert load_engine("vllm").policy == "chunked"
    assert load_engine("sglang").policy == "prefill_priority"
    assert load_engine("tensorrt-llm").policy == "mixed"
    assert load_engine("trtllm") == load_engine("tensorrt-llm")
    assert load_engine("tensorrt-llm").kv_reserve == 1.0


def test_four_bit_kernels_come_from_their_own_row() -> None:
    vllm = load_engine("vllm")
    assert vllm.moe_kernel("mxfp4", "hopper").launch == 25e-6
    assert vllm.moe_kernel("mxfp4", "blackwell").launch == 20.5e-6
    assert vllm.moe_kernel("bf16", "hopper").path == "G"
    assert vllm.moe_kernel("bf16", "hopper").compute == 0.63
    assert vllm.moe_kernel("bf16", "ampere").compute is None


def test_the_words_of_a_deployment_choose_its_kernel() -> None:
    vllm = load_engine("vllm")
    assert vllm.moe_kernel("mxfp4", "hopper").prefill < 1
    marlin = replace(vllm, kernel_words=("VLLM_MXFP4_USE_MARLIN=1", "OTHER=2"))
    unpacking = marlin.moe_kernel("mxfp4", "hopper")
    assert unpacking.unpack == 19.1e9
    assert unpacking.heights == (8, 16, 32, 48, 64)
    assert vllm.moe_kernel("mxfp4", "hopper").unpack is None
    assert marlin.moe_kernel("mxfp4", "blackwell") == vllm.moe_kernel("mxfp4", "blackwell")


def test_a_record_may_state_kernels_by_words_and_tile(tmp_path: Path) -> None:
    kernel = '[[moe_kernels]]\nprecision = "fp8"\npath = "L"\n'
    tile = 'tile = { value = %s, unit = "tokens", kind = "measured", source = "a table" }\n'
    path = tmp_path / "own.toml"
    path.write_text(f'extends = "vllm"\n{kernel}words = ["A=1"]\n{tile % 64}', encoding="utf-8")
    found = load_engine(path)
    assert found.moe_kernel("fp8", "hopper").tile == 0
    assert replace(found, kernel_words=("A=1",)).moe_kernel("fp8", "hopper").tile == 64
    for wrong in ('words = "A=1"\n', tile % 0.5, "heights = [16, 8]\n", "heights = [0.5]\n"):
        path.write_text(f'extends = "vllm"\n{kernel}{wrong}', encoding="utf-8")
        with pytest.raises(DataError):
            load_engine(path)


def test_defaults_on_smaller_gpus(h100: Device, a100: Device) -> None:
    vllm = load_engine("vllm")
    assert vllm.for_device(h100) == vllm
    small = vllm.for_device(a100)
    assert (small.max_num_seqs, small.max_num_batched_tokens) == (256, 2048)
    trt = load_engine("tensorrt-llm")
    assert trt.for_device(a100) == trt


def test_an_instance_that_only_prefills_or_decodes_has_its_own_host_time() -> None:
    sglang = load_engine("sglang")
    prefill, decode = sglang.for_role("p"), sglang.for_role("d")
    assert sglang.for_role("m") == sglang
    assert decode.a_step_moe == pytest.approx(0.4 * 3.0e-3)
    assert decode.a_seq == pytest.approx(0.4 * 18e-6)
    assert (decode.phi_moe, prefill.phi_moe, prefill.phi) == (1.5, 1.2, 1.0)
    assert prefill.a_seq == pytest.approx(10e-3 + 18e-6)
    assert prefill.a_step == sglang.a_step
    assert (prefill.for_role("p"), decode.for_role("d")) == (prefill, decode)


@pytest.mark.parametrize("name", [n for n in list_engines() if n != "sglang"])
def test_what_splitting_costs_is_assumed_to_be_nothing_where_nobody_measured_it(name: str) -> None:
    record = engine_record(name)
    kinds = {row.field: row.kind for row in record.rows if row.field in SPLIT}
    assert kinds == dict.fromkeys(("decode_host", "prefill_host", "handover"), "assumed")
    engine = record.constants
    assert not engine.knows_splitting
    for role in ("p", "d"):
        assert engine.for_role(role) == engine


def test_own_file_extends_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "vllm"\n[figures]\n'
        'a_step = { value = 2e-3, unit = "s", kind = "measured", source = "our own log" }\n'
    )
    mine = load_engine(path)
    assert mine.a_step == 2e-3
    assert mine.a_seq == load_engine("vllm").a_seq
    assert mine.name == "mine"
    assert not mine.knows_splitting
    path.write_text(figure("handover", "15e-3"))
    assert load_engine(path).handover == 15e-3
    assert load_engine(path).knows_splitting


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="nearest: vllm"):
        load_engine("vlm")


EXTENDS = 'extends = "vllm"\n[figures]\n'


def figure(name: str = "a_step", value: str = "2e-3", unit: str = "s") -> str:
    entry = f'{{ value = {value}, unit = "{unit}", kind = "measured", source = "log" }}'
    return f"{EXTENDS}{name} = {entry}"


BAD = {
    "not toml": ("= 3", "no valid TOML"),
    "missing": ('policy = "chunked"', "missing: a_step"),
    "unknown key": ('extends = "vllm"\npolcy = "chunked"', "nearest: policy"),
    "unknown figure": (figure("a_stp"), "nearest: a_step"),
    "wrong unit": (figure(unit="ms"), "never converted"),
    "bare number": (f"{EXTENDS}a_step = 0.002", "value, unit, kind, source"),
    "negative": (figure(value="-2e-3"), "a_step"),
    "not a number": (figure(value="nan"), "a_step"),
    "text": (figure(value='"x"'), "a_step"),
    "faster prompts": (figure("prefill_phi", "0.9", "1"), "prefill_phi must be at least 1"),
    "wrong choice": ('extends = "vllm"\npolicy = "fifo"', "must be one of chunked"),
    "wrong type": ('extends = "vllm"\ncuda_graphs = 1', "cuda_graphs"),
    "base unknown": ('extends = "vlm"', "nearest: vllm"),
    "loop": ('extends = "./bad.toml"', "extend each other"),
    "kernels": ('extends = "vllm"\nmoe_kernels = 3', "moe_kernels"),
    "kernel path": (
        'extends = "vllm"\n[[moe_kernels]]\nprecision = "fp8"\npath = "X"',
        "must be one of L, G",
    ),
    "fraction of sequences": (figure("max_num_seqs", "1.5", "1"), "whole number"),
    "phi": (figure("phi", "0.5", "1"), "at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, expected = BAD[case]
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_engine(path)
    message = str(caught.value)
    assert expected in message
    assert "bad.toml" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("preset", "gpu", "tokens"),
    [
        ("vllm-0.28", "b200-sxm", 16384),
        ("vllm-0.28", "h200-sxm", 8192),
        ("vllm-0.28", "l4", 2048),
        ("vllm-0.21", "b200-sxm", 8192),
        ("vllm-0.28", "mi300x", 16384),
    ],
)
def test_vllm_takes_larger_steps_on_large_gpus_from_0_28(preset, gpu, tokens):
    engine = load_engine(preset).for_device(load_hardware(gpu).device())
    assert engine.max_num_batched_tokens == tokens
    assert engine.for_device(load_hardware(gpu).device()) == engine


def test_the_share_of_memory_grew_with_0_20():
    shares = [load_engine(p).gpu_memory_utilization for p in ("vllm", "vllm-0.20", "vllm-0.28")]
    assert shares == [0.9, 0.92, 0.92]
