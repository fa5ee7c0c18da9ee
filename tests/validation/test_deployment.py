"""What a row deployed, and when it is refused instead of guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bestserve.catalog import load_model
from bestserve.catalog.folders import package_folder
from bestserve.models.step.device import Parallelism
from bestserve.readers.tidy import TidyRow
from bestserve.validation.deployment import Deployment, deployment_of
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.sources import suite_of

Make = Callable[..., TidyRow]


def deployed(row: TidyRow) -> Deployment:
    return deployment_of(row, suite_of(row))


def test_a_plain_row(make: Make) -> None:
    found = deployed(make())
    assert found.hardware.name == "h100-sxm"
    assert found.pools == (("m", 1, Parallelism(tp=1)),)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"gpu": "NVIDIA X9000"}, Outcome.GPU_UNKNOWN),
        ({"gpu": "NVIDIA H100"}, Outcome.GPU_AMBIGUOUS),
        ({"gpu": None}, Outcome.GPU_UNKNOWN),
        ({"model": "nobody/model-1T"}, Outcome.MODEL_UNKNOWN),
        ({"model": None}, Outcome.MODEL_UNKNOWN),
        ({"engine": None}, Outcome.ENGINE_UNKNOWN),
        ({"tp": None, "num_gpus": 8}, Outcome.PARALLELISM_MISSING),
        ({"tp": 4, "num_gpus": 2}, Outcome.CONTRADICTION),
        ({"replicas": 4, "tp": 2, "num_gpus": 4}, Outcome.CONTRADICTION),
        ({"attention_dp": 8, "tp": 8, "num_gpus": 8}, Outcome.CONTRADICTION),
        ({"speculative_decoding": True}, Outcome.NOT_MODELLED),
        ({"precision": "ternary"}, Outcome.NOT_MODELLED),
        ({"disaggregated": True}, Outcome.PARALLELISM_MISSING),
    ],
)
def test_refusals_name_what_is_missing(
    make: Make, changes: dict[str, Any], outcome: Outcome
) -> None:
    with pytest.raises(UnpredictableError) as refusal:
        deployed(make(**changes))
    assert refusal.value.outcome is outcome
    what = outcome.sentence.partition(" is ")[0]
    said = f"{what} is not stated" if None in changes.values() else outcome.sentence
    assert refusal.value.reason.startswith(said)


@pytest.mark.parametrize(
    ("changes", "name", "evidence"),
    [
        ({"gpu": "NVIDIA H100", "num_gpus": 8, "tp": 8}, "h100-sxm", "whole nodes"),
        ({"gpu": "nvidia-h100-80gb"}, "h100-sxm", "label"),
        ({"gpu": "NVIDIA H100", "notes": ("hw 'A single NVIDIA H100 SXM GPU.'",)}, "h100-sxm",
         "hardware note"),
        ({"gpu": "NVIDIA A100", "notes": ("hw 'one NVIDIA A100 SXM 40GB'",)}, "a100-40gb-sxm",
         "hardware note"),
    ],
)  # fmt: skip
def test_evidence_decides_between_boards_and_is_stated(
    make: Make, changes: dict[str, Any], name: str, evidence: str
) -> None:
    found = deployed(make(**changes))
    assert found.hardware.name == name
    assert any(evidence in note for note in found.notes)


def test_replicas_fill_the_gpus(make: Make) -> None:
    found = deployed(make(num_gpus=8, tp=2))
    assert found.pools == (("m", 4, Parallelism(tp=2)),)
    assert "4 replicas fill the 8 GPUs" in found.notes


def test_attention_data_parallelism_of_a_mixture(make: Make) -> None:
    row = make(model="deepseek-ai/DeepSeek-R1", tp=8, num_gpus=8, attention_dp=8, attention_tp=1,
               ep=8)  # fmt: skip
    assert deployed(row).pools == (("m", 1, Parallelism(tp=1, dp=8, ep=8)),)


def test_prefill_and_decode_workers(make: Make) -> None:
    row = make(disaggregated=True, prefill_workers=1, decode_workers=3, prefill_tp=2, decode_tp=2,
               num_gpus=8, tp=None)  # fmt: skip
    pools = deployed(row).pools
    assert [(role, n, p.tp) for role, n, p in pools] == [("p", 1, 2), ("d", 3, 2)]


def test_mlperf_takes_the_smallest_tp_that_leaves_room(make: Make) -> None:
    row = make(source="MLPerf Inference v4.1 closed/X", model="meta-llama/Llama-2-70b-chat-hf",
               engine="TensorRT-LLM", tp=None, num_gpus=8, precision="fp16", request_rate=60.0,
               concurrency=None)  # fmt: skip
    found = deployed(row)
    assert found.pools == (("m", 4, Parallelism(tp=2)),)
    assert found.precision == "fp8"
    assert sum("tp 2" in n or "fp8 weights" in n for n in found.notes) == 2


def test_suites_configure_what_their_rows_leave_open(make: Make) -> None:
    row = make(source="AIConfigurator silicon_sample (NVIDIA aic-auto-gap-analysis)",
               input_len_asked=1024.0, concurrency=16)  # fmt: skip
    found = deployed(row)
    assert found.engine_constants.max_num_batched_tokens == 1024 + 16
    stated = deployed(make(max_num_batched_tokens=4096))
    assert stated.engine_constants.max_num_batched_tokens == 4096


def test_vllm_v0_chunks_only_long_contexts(make: Make) -> None:
    short = deployed(make(engine_version="0.7.3", max_model_len=4096)).engine_constants
    long = deployed(make(engine_version="0.7.3", max_model_len=65536)).engine_constants
    assert (short.policy, short.max_num_batched_tokens) == ("prefill_priority", 4096)
    assert (long.policy, long.max_num_batched_tokens) == ("chunked", 512)
    v1 = deployed(make(chunked_prefill=False)).engine_constants
    assert v1.policy == "mixed"


def test_amd_boards_of_2024_ran_16_bit_kernels_slowly(make: Make) -> None:
    args: dict[str, Any] = {"gpu": "AMD MI300X", "num_gpus": 8, "tp": 8}
    big = "meta-llama/Llama-3.1-405B-Instruct"
    old = deployed(make(model=big, engine="vLLM", engine_version="0.6.3", **args))
    new = deployed(make(model=big, engine="vLLM", engine_version="0.11.0", **args))
    tgi = deployed(make(model=big, engine="TGI", **args))
    fp8 = deployed(make(model=big, engine="vLLM", engine_version="0.6.3", precision="fp8", **args))
    reach = [d.hardware.device().compute_reach for d in (old, tgi, new, fp8)]
    assert reach[0] < reach[1] < reach[2] == reach[3] == 1.0
    assert old.hardware.name == new.hardware.name
    assert tgi.engine_constants.max_num_seqs > 10_000
    assert tgi.engine_constants.kv_reserve == 1.0


def test_a_log_names_models_of_the_catalogue_and_opens_no_files(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log is a stranger's; a path is followed only where the caller stated it."""
    config = package_folder("models") / "meta-llama--Llama-3.1-8B" / "config.json"
    (tmp_path / "priv").mkdir()
    (tmp_path / "priv" / "config.json").write_text(config.read_text())
    monkeypatch.chdir(tmp_path)
    for name in ("./priv/config.json", str(tmp_path / "priv"), "priv", "~/priv/config.json"):
        with pytest.raises(UnpredictableError) as refusal:
            deployed(make(model=name))
        assert refusal.value.outcome is Outcome.MODEL_UNKNOWN
    own = make(model="./priv/config.json", stated=("model",))
    assert deployed(own).model.architecture == load_model("meta-llama/Llama-3.1-8B").architecture


INFERENCE_MAX = "AIConfigurator silicon_sample (InferenceX DB dump)"
GAP_ANALYSIS = "AIConfigurator silicon_sample (NVIDIA aic-auto-gap-analysis)"


def test_kernels_follow_the_words_of_notes_and_suites(make: Make) -> None:
    own = deployed(make(notes=("VLLM_MXFP4_USE_MARLIN=1", "max-cudagraph-capture-size 2048")))
    assert own.engine_constants.kernel_words == ("VLLM_MXFP4_USE_MARLIN=1",)
    suite = deployed(make(source=INFERENCE_MAX, model="openai/gpt-oss-120b"))
    assert suite.engine_constants.kernel_words == ("VLLM_MXFP4_USE_MARLIN=1",)
    assert any("VLLM_MXFP4_USE_MARLIN" in note for note in suite.notes)
    other = deployed(make(source=INFERENCE_MAX, model="openai/gpt-oss-120b", gpu="NVIDIA B200 SXM"))
    assert other.engine_constants.kernel_words == ()


def test_a_whole_command_that_names_no_cache_format_has_the_engines_own(make: Make) -> None:
    fork = {"source": "someone's inferencex fork", "model": "openai/gpt-oss-120b"}
    assert deployed(make(**fork)).kv_fp8 is True
    command = ("cmd: vllm serve openai/gpt-oss-120b --max-num-seqs 256",)
    assert deployed(make(**fork, notes=command)).kv_fp8 is None


def test_asynchronous_scheduling_takes_the_host_of_later_versions(make: Make) -> None:
    assert deployed(make()).engine.preset == "vllm-0.11"
    assert deployed(make(async_scheduling=True)).engine.preset == "vllm"
    suite = deployed(make(source=INFERENCE_MAX, model="openai/gpt-oss-120b"))
    assert suite.engine.preset == "vllm"
    assert "asynchronous" in suite.engine.note


@pytest.mark.parametrize(
    ("version", "policy"), [("0.5.6.post2", "chunked"), ("0.5.1.post1", "prefill_priority")]
)
def test_sglang_mixes_chunks_in_one_suite_from_a_version_on(
    make: Make, version: str, policy: str
) -> None:
    row = make(source=GAP_ANALYSIS, engine="SGLang", engine_version=version)
    assert deployed(row).engine_constants.policy == policy
    plain = make(engine="SGLang", engine_version=version)
    assert deployed(plain).engine_constants.policy == "prefill_priority"


def test_several_scheduler_steps_mean_the_engine_that_had_them(make: Make) -> None:
    assert deployed(make(num_scheduler_steps=8, engine_version=None)).engine.preset == "vllm-v0"


def test_tensorrt_llm_with_chunked_context_cuts_prompts(make: Make) -> None:
    row = make(engine="TensorRT-LLM", chunked_prefill=True, max_num_batched_tokens=2048)
    constants = deployed(row).engine_constants
    assert (constants.policy, constants.max_num_batched_tokens) == ("chunked", 2048)


@pytest.mark.parametrize(
    ("version", "launch"), [("1.0.0rc3", 3e-6), ("1.2.0rc1", 0.0), (None, 0.0)]
)
def test_tensorrt_llm_before_fusion_launches_a_quantising_kernel(
    make: Make, version: str | None, launch: float
) -> None:
    row = make(engine="TensorRT-LLM", engine_version=version, precision="fp8")
    assert deployed(row).engine_constants.quantise_launch == launch
