"""Devices, architectures and a plain engine that the operator tests share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import Device
from bestserve.models.step.engine import EngineConstants


@pytest.fixture(scope="session")
def h100() -> Device:
    return load_hardware("h100-sxm").device()


@pytest.fixture(scope="session")
def b200() -> Device:
    return load_hardware("b200-sxm").device()


@pytest.fixture(scope="session")
def a100() -> Device:
    return load_hardware("a100-80gb-sxm").device()


@pytest.fixture(scope="session")
def llama70b() -> Architecture:
    return load_model("meta-llama/Llama-3.1-70B").architecture


@pytest.fixture(scope="session")
def llama8b() -> Architecture:
    return load_model("meta-llama/Llama-3.1-8B").architecture


@pytest.fixture(scope="session")
def deepseek() -> Architecture:
    return load_model("deepseek-ai/DeepSeek-V3").architecture


@pytest.fixture(scope="session")
def vllm() -> EngineConstants:
    return load_engine("vllm")


@pytest.fixture(scope="session")
def bare(vllm: EngineConstants) -> EngineConstants:
    """vLLM without host time and prompt factor: device time only."""
    return replace(vllm, a_step=0.0, a_step_moe=0.0, a_seq=0.0, a_seq_moe=0.0, phi_moe=1.0)
