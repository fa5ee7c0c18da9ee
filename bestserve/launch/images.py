"""Container images: one pinned version per engine preset, by the GPU's maker.

Tags as the projects publish them (vLLM's and SGLang's registries, NVIDIA's catalogue), 2026-11.
"""

from __future__ import annotations

from bestserve.errors import InputError
from bestserve.specs.hardware import Hardware

VERSIONS = {
    "vllm": "0.19.1",
    "vllm-eager": "0.19.1",
    "vllm-0.11": "0.12.0",
    "vllm-0.15": "0.16.0",
    "vllm-0.20": "0.20.2",
    "vllm-0.21": "0.27.1",
    "vllm-0.28": "0.33.0",
    "sglang": "0.5.23",
    "tensorrt-llm": "1.2.1",
}
"""The last version that a preset describes."""

DYNAMO = "1.3.1"
RESOURCES = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu"}
"""What Kubernetes calls a GPU, by its maker."""

ROUTER_IMAGE = "python:3.12-slim"
"""Routers are packages that need no GPU and no engine; this runs them."""

_DYNAMO = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "tensorrtllm"}
_CDNA4 = ("mi350", "mi355")


def version(preset: str) -> str:
    """Return the engine version whose image serves a preset. Raises InputError without one."""
    if preset in VERSIONS:
        return VERSIONS[preset]
    known = ", ".join(VERSIONS)
    raise InputError(
        f"engine {preset!r} names no version to pin an image to; presets of {known} do, and "
        "--format commands needs no image"
    )


def image(family: str, preset: str, hardware: Hardware) -> str:
    """Return the engine's image for a GPU. Raises InputError where none is published."""
    tag, vendor = version(preset), hardware.vendor
    if family == "vllm" and vendor in RESOURCES:
        return f"vllm/vllm-openai{'-rocm' if vendor == 'AMD' else ''}:v{tag}"
    if family == "sglang" and vendor == "NVIDIA":
        return f"lmsysorg/sglang:v{tag}"
    if family == "sglang" and vendor == "AMD":
        board = "mi35x" if hardware.name.lower().startswith(_CDNA4) else "mi30x"
        return f"lmsysorg/sglang:v{tag}-rocm720-{board}"
    if family == "tensorrt-llm" and vendor == "NVIDIA":
        return f"nvcr.io/nvidia/tensorrt-llm/release:{tag}"
    raise InputError(
        f"no published image of {family} for {hardware.name} ({vendor or 'unknown maker'}) is "
        "known here; --format commands needs none"
    )


def dynamo_image(family: str, hardware: Hardware, version: str = DYNAMO) -> str:
    """Return Dynamo's runtime image of an engine. Raises InputError but for NVIDIA's GPUs."""
    if hardware.vendor != "NVIDIA":
        raise InputError(
            f"Dynamo's runtime images are for NVIDIA GPUs, {hardware.name} is made by "
            f"{hardware.vendor}; take --format kubernetes or commands"
        )
    return f"nvcr.io/nvidia/ai-dynamo/{_DYNAMO[family]}-runtime:{version}"
