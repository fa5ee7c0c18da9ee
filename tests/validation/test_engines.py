"""Engine spellings, versions and the presets they mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bestserve.catalog import load_engine
from bestserve.readers.tidy import TidyRow
from bestserve.validation.engines import choose_engine, engine_family, engine_version
from bestserve.validation.outcome import Outcome, UnpredictableError

Make = Callable[..., TidyRow]


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("vLLM", "vllm"),
        ("SGLang", "sglang"),
        ("TensorRT-LLM", "tensorrt-llm"),
        ("trtllm", "tensorrt-llm"),
        ("TRT LLM 1.0", "tensorrt-llm"),
        ("dynamo-trt", "tensorrt-llm"),
        ("TGI", "tgi"),
        ("text-generation-inference", "tgi"),
        ("llama.cpp", ""),
    ],
)
def test_spellings_of_engines(text: str, family: str) -> None:
    assert engine_family(text) == family


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.6.3.post2.dev308+gb489fc3c", (0, 6)),
        ("v0.11.0", (0, 11)),
        ("0.20.1+transformers-5.8.1", (0, 20)),
        ("latest (Sep 2025)", None),
        (None, None),
    ],
)
def test_versions(text: str | None, version: tuple[int, int] | None) -> None:
    assert engine_version(text) == version


@pytest.mark.parametrize(
    ("changes", "preset"),
    [
        ({"engine_version": "0.6.3"}, "vllm-v0"),
        ({"engine_version": "0.9.0"}, "vllm-0.11"),
        ({"engine_version": "0.9.0", "engine_generation": "V0"}, "vllm-v0"),
        ({"engine_version": "0.18.0"}, "vllm"),
        ({"engine_version": None, "date": "2025-10-29"}, "vllm-0.11"),
        ({"engine_version": None, "date": "2024-10"}, "vllm-v0"),
        ({"engine_version": None, "date": "2026"}, "vllm"),
        ({"engine_version": None}, "vllm"),
        ({"engine": "SGLang"}, "sglang"),
        ({"engine": "TGI"}, "vllm-v0"),
    ],
)
def test_presets_by_version_and_date(make: Make, changes: dict[str, str], preset: str) -> None:
    choice = choose_engine(make(**changes))
    assert choice.preset == preset
    assert load_engine(preset).name == preset


def test_assumptions_are_stated(make: Make) -> None:
    assert "not stated" in choose_engine(make(engine_version=None)).note
    assert choose_engine(make()).note == ""


def test_an_unknown_engine_is_refused_by_name(make: Make) -> None:
    with pytest.raises(UnpredictableError, match=r"mystery") as refusal:
        choose_engine(make(engine="mystery"))
    assert refusal.value.outcome is Outcome.ENGINE_UNKNOWN
