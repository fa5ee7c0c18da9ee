"""Spellings of models: aliases, quantised checkpoints, served paths, snapshot folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bestserve.catalog import list_models, load_engine, load_hardware, load_model
from bestserve.errors import DataError, UnknownNameError

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1000,
}

# spelling -> (record, weights, experts)
SPELLINGS = {
    "meta-llama/Llama-3.1-70B": ("meta-llama/Llama-3.1-70B", "bf16", "bf16"),
    "meta-llama/Meta-Llama-3.1-70B-Instruct": ("meta-llama/Llama-3.1-70B", "bf16", "bf16"),
    "llama-3.1-70b": ("meta-llama/Llama-3.1-70B", "bf16", "bf16"),
    "Llama-3.3-70B-Instruct": ("meta-llama/Llama-3.1-70B", "bf16", "bf16"),
    "unsloth/Llama-3.1-8B-Instruct": ("meta-llama/Llama-3.1-8B", "bf16", "bf16"),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8": ("meta-llama/Llama-3.1-8B", "fp8", "bf16"),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8": (
        "meta-llama/Llama-3.1-8B",
        "int8",
        "bf16",
    ),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a16": (
        "meta-llama/Llama-3.1-8B",
        "w8a16",
        "bf16",
    ),
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16": (
        "meta-llama/Llama-3.1-8B",
        "int4",
        "bf16",
    ),
    "neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8-dynamic": (
        "meta-llama/Llama-3.1-70B",
        "fp8",
        "bf16",
    ),
    "Qwen/Qwen3-32B-FP8": ("Qwen/Qwen3-32B", "fp8_block", "bf16"),
    "Qwen3-32B-FP8": ("Qwen/Qwen3-32B", "fp8_block", "bf16"),
    "Qwen/Qwen3-32B-FP8-Static-PerTensor": ("Qwen/Qwen3-32B", "fp8", "bf16"),
    "RedHatAI/Qwen3-32B-FP8": ("Qwen/Qwen3-32B", "fp8", "bf16"),
    "Qwen/Qwen3-14B-AWQ": ("Qwen/Qwen3-14B", "int4", "bf16"),
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4": ("Qwen/Qwen2.5-72B", "int4", "bf16"),
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8": ("Qwen/Qwen2.5-72B", "w8a16", "bf16"),
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8": ("Qwen/Qwen3-235B-A22B", "fp8_block", "fp8_block"),
    "nvidia/Llama-3.1-70B-Instruct-NVFP4": ("meta-llama/Llama-3.1-70B", "nvfp4", "bf16"),
    "nvidia/DeepSeek-V3.1-NVFP4": ("deepseek-ai/DeepSeek-V3", "nvfp4", "nvfp4"),
    "GLM-5-FP8": ("zai-org/GLM-5", "fp8_block", "fp8_block"),
    "MiniMax-M2.7 (FP8)": ("MiniMaxAI/MiniMax-M2", "fp8_block", "fp8_block"),
    "deepseek-ai/DeepSeek-R1": ("deepseek-ai/DeepSeek-V3", "fp8_block", "fp8_block"),
    "DeepSeek-R1-BF16": ("deepseek-ai/DeepSeek-V3", "bf16", "bf16"),
    "/workspace/DeepSeek-R1-0528": ("deepseek-ai/DeepSeek-V3", "fp8_block", "fp8_block"),
    "/models/org/Qwen3-32B/": ("Qwen/Qwen3-32B", "bf16", "bf16"),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": (
        "meta-llama/Llama-4-Maverick-17B-128E",
        "bf16",
        "fp8",
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    model = load_model(spelling)
    record, weights, experts = SPELLINGS[spelling]
    assert model.record == record
    assert model.name == (spelling.strip("/").split("/")[-1] if spelling[0] == "/" else spelling)
    assert model.weights == weights
    if model.architecture.is_moe:
        assert model.experts == experts
    assert model.architecture == load_model(record).architecture


@pytest.mark.parametrize("name", list_models())
def test_records_answer_to_their_aliases_with_and_without_organisation(name: str) -> None:
    model = load_model(name)
    for spelling in (name.lower(), name.split("/", 1)[1], *model.aliases):
        assert load_model(spelling).record == name


def test_what_a_renamed_model_says_about_itself() -> None:
    model = load_model("Qwen/Qwen3-32B-AWQ")
    assert any("give the checkpoint's config.json" in note for note in model.notes)
    assert "same architecture as meta-llama/Llama-3.1-70B" in load_model("llama-3.1-70b").notes
    assert load_model("amd/Llama-3.1-70B-Instruct-FP8-KV").formats().kv_bytes == 1.0


UNKNOWN = {
    "Qwen/Qwen3-33B": "Qwen/Qwen3-32B",
    "meta-lama/Llama-3.1-70": "meta-llama/Llama-3.1-70B",
    "Llama-3.1-70B-abliterated": "Llama-3.1-70B",
    "gpt-oss": "openai/gpt-oss-20b",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_list_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown model") as refused:
        load_model(name)
    assert UNKNOWN[name].lower() in str(refused.value).lower()
    assert "config.json" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["", "/", "..", "../..", "a/b/c", "-FP8", "x" * 5000, "\x00", "\n", "--", "~", "C:\\"]
)
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises((UnknownNameError, DataError)) as refused:
        load_model(name)
    assert len(str(refused.value)) < 700


def test_own_file_folder_and_cache_snapshot(tmp_path: Path) -> None:
    config = TINY
    snapshot = tmp_path / "models--me--Tiny" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(config))
    shapes = set()
    for path in (snapshot / "config.json", snapshot, tmp_path / "models--me--Tiny"):
        for given in (path, str(path)):
            model = load_model(given)
            shapes.add(model.architecture)
            assert model.record == ""
            assert str(path) in model.name
    assert len(shapes) == 1
    assert model.weights == "bf16"


def test_folders_that_are_no_models_do_not_shadow_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("vllm", "h100-sxm", "Qwen/Qwen3-8B"):
        (tmp_path / folder).mkdir(parents=True)
    assert load_model("Qwen/Qwen3-8B").record == "Qwen/Qwen3-8B"
    assert load_hardware("h100-sxm").name == "h100-sxm"
    assert load_engine("vllm").policy == "chunked"
    own = {**TINY, "hidden_size": 128}
    (tmp_path / "Qwen" / "Qwen3-8B" / "config.json").write_text(json.dumps(own))
    assert load_model("Qwen/Qwen3-8B").record == ""


def test_settings_beside_the_config_are_read(tmp_path: Path) -> None:
    """ModelOpt writes its settings into hf_quant_config.json."""
    config = TINY
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(settings))
    model = load_model(tmp_path)
    assert (model.weights, model.kv_cache_dtype, model.quantisation) == ("fp8", "fp8", "modelopt")


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config.json in this folder"):
        load_model(tmp_path)


# Architectures of the measured rows that bestserve does not read, with the reason.
REFUSED = {
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16": "Mamba layers and experts in a latent space",
}


def test_every_model_of_the_measured_rows_is_found_or_listed(shared: Path) -> None:
    with (shared / "measured" / "measured_dev.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = {row["model"] for row in rows}
    assert len(names) > 50
    refused = set()
    for name in names:
        try:
            assert load_model(name).record
        except UnknownNameError:
            refused.add(name)
    assert refused == set(REFUSED)
    fp8 = {row["model"] for row in rows if row["model"].endswith("FP8")}
    assert all(load_model(name).weights.startswith("fp8") for name in fp8)
