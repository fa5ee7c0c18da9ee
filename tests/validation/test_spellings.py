"""GPUs, models and engines as tools, clouds and people write them, up to the deployment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bestserve.catalog import list_hardware
from bestserve.readers.tidy import TidyRow
from bestserve.validation.deployment import Deployment, deployment_of
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.sources import suite_of

Make = Callable[..., TidyRow]

# spelling -> (record, where it is seen)


def deployed(row: TidyRow) -> Deployment:
    return deployment_of(row, suite_of(row))


GPUS = {
    "NVIDIA H100 80GB HBM3": ("h100-sxm", "nvidia-smi"),
    "H100-SXM5-80GB": ("h100-sxm", "people"),
    "NVIDIA H100 PCIe": ("h100-pcie", "nvidia-smi"),
    "NVIDIA H100 NVL": ("h100-nvl", "nvidia-smi"),
    "8xH100-SXM": ("h100-sxm", "benchmark tables"),
    "nvidia-h100-mega-80gb": ("h100-sxm", "GKE"),
    "p5.48xlarge": ("h100-sxm", "AWS"),
    "a3-highgpu-8g": ("h100-sxm", "Google Cloud"),
    "Standard_ND96isr_H100_v5": ("h100-sxm", "Azure"),
    "NVIDIA H200": ("h200-sxm", "nvidia-smi"),
    "p5en.48xlarge": ("h200-sxm", "AWS"),
    "nvidia-h200-141gb": ("h200-sxm", "GKE"),
    "NVIDIA B200": ("b200-sxm", "nvidia-smi"),
    "NVIDIA B300 SXM6 AC": ("b300-sxm", "nvidia-smi"),
    "NVIDIA GB200": ("gb200", "nvidia-smi"),
    "A100-SXM4-80GB": ("a100-80gb-sxm", "people"),
    "NVIDIA A100-SXM4-40GB": ("a100-40gb-sxm", "nvidia-smi"),
    "NVIDIA A100 80GB PCIe": ("a100-80gb-pcie", "nvidia-smi"),
    "p4de.24xlarge": ("a100-80gb-sxm", "AWS"),
    "a2-ultragpu-1g": ("a100-80gb-sxm", "Google Cloud"),
    "NVIDIA L40S": ("l40s", "nvidia-smi"),
    "g6e.xlarge": ("l40s", "AWS"),
    "NVIDIA L4": ("l4", "nvidia-smi"),
    "g2-standard-48": ("l4", "Google Cloud"),
    "NVIDIA A10G": ("a10g", "nvidia-smi"),
    "NVIDIA GeForce RTX 4090": ("rtx-4090", "nvidia-smi"),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": ("rtx-pro-6000-server", "nvidia-smi"),
    "MI300X": ("mi300x", "people"),
    "AMD Instinct MI300X OAM": ("mi300x", "rocm-smi"),
    "Standard_ND96isr_MI300X_v5": ("mi300x", "Azure"),
    "AMD Instinct MI325X": ("mi325x", "rocm-smi"),
    "NVIDIA H20": ("h20", "nvidia-smi"),
    "Ascend 910B3": ("ascend-910b3", "people"),
}

# spelling -> (a word of the record's name, weights, experts)
MODELS = {
    "meta-llama/Meta-Llama-3.1-8B-Instruct": ("Llama-3.1-8B", "bf16"),
    "Llama-3.3-70B-Instruct-FP8": ("Llama-3.3-70B", "fp8"),
    "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic": ("Llama-3.3-70B", "fp8"),
    "nvidia/Llama-3.1-405B-Instruct-FP4": ("Llama-3.1-405B", "nvfp4"),
    "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4": ("Llama-3.1-70B", "int4"),
    "models--meta-llama--Llama-3.1-8B-Instruct": ("Llama-3.1-8B", "bf16"),
    "/data/models/Meta-Llama-3.1-8B-Instruct/": ("Llama-3.1-8B", "bf16"),
    "meta/llama-3.1-8b-instruct": ("llama-3.1-8b", "bf16"),
    "openai/gpt-oss-120b": ("gpt-oss-120b", "mxfp4"),
    "gpt-oss-20b": ("gpt-oss-20b", "mxfp4"),
    "Qwen3-235B-A22B-FP8": ("Qwen3-235B-A22B", "fp8_block"),
    "Qwen/Qwen3-30B-A3B": ("Qwen3-30B-A3B", "bf16"),
    "Qwen/Qwen2.5-72B-Instruct-AWQ": ("Qwen2.5-72B", "int4"),
    "deepseek-ai/DeepSeek-V3-0324": ("DeepSeek-V3", "fp8_block"),
    "nvidia/DeepSeek-R1-FP4": ("DeepSeek-R1", "nvfp4"),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": ("Mixtral-8x7B", "bf16"),
    "google/gemma-3-27b-it": ("gemma-3-27b", "bf16"),
    "moonshotai/Kimi-K2-Instruct": ("Kimi-K2", "fp8_block"),
    "zai-org/GLM-4.6-FP8": ("GLM-4.6", "fp8_block"),
}

ENGINES = {
    "vllm": "vllm",
    "vLLM 0.11.0": "vllm",
    "SGLang": "sglang",
    "sglang-oai": "sglang",
    "TensorRT-LLM": "tensorrt-llm",
    "trtllm": "tensorrt-llm",
    "dynamo-trt": "tensorrt-llm",
}


@pytest.mark.parametrize("spelling", GPUS)
def test_gpus(make: Make, spelling: str) -> None:
    record, seen = GPUS[spelling]
    assert record in list_hardware(), seen
    assert deployed(make(gpu=spelling)).hardware.name == record


@pytest.mark.parametrize("spelling", MODELS)
def test_models(make: Make, spelling: str) -> None:
    word, weights = MODELS[spelling]
    found = deployed(make(model=spelling, tp=8, num_gpus=8))
    assert word in found.model.name
    assert weights == (found.model.experts if found.moe else found.model.weights)


@pytest.mark.parametrize("spelling", ENGINES)
def test_engines(make: Make, spelling: str) -> None:
    assert deployed(make(engine=spelling)).engine.family == ENGINES[spelling]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"gpu": "nvidia_h100"}, Outcome.GPU_AMBIGUOUS),  # SXM, PCIe or NVL: never guessed
        ({"gpu": "A100 80GB"}, Outcome.GPU_AMBIGUOUS),
        ({"gpu": "Tesla K80"}, Outcome.GPU_UNKNOWN),
        ({"model": "llama3.1:8b"}, Outcome.MODEL_UNKNOWN),  # Ollama's: 4-bit by default
        ({"engine": "llama.cpp"}, Outcome.ENGINE_UNKNOWN),
    ],
)
def test_what_is_not_clear_is_refused(
    make: Make, changes: dict[str, str], outcome: Outcome
) -> None:
    with pytest.raises(UnpredictableError) as refused:
        deployed(make(**changes))
    assert refused.value.outcome is outcome


def test_whole_nodes_settle_the_form_factor(make: Make) -> None:
    found = deployed(make(gpu="nvidia_h100", num_gpus=8, tp=8))
    assert found.hardware.name == "h100-sxm"
    assert any("whole nodes" in note for note in found.notes)
