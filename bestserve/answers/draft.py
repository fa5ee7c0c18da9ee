"""What a draft head adds to memory: its weights, and a cache as long as the model's own.

As vLLM states it, `{"method": "eagle3", "model": "…", "num_speculative_tokens": 3}`. Multi-token
prediction loads the checkpoint's own extra layers; EAGLE a decoder layer behind a projection of
two hidden states (EAGLE-3: three, with a vocabulary of its own); a draft model all of itself.
Sources: Li et al. 2024, arXiv:2401.15077 and 2025, arXiv:2503.01840; DeepSeek-AI 2024,
arXiv:2412.19437 section 2.2; vLLM's `model_executor/models` (llama_eagle, llama_eagle3,
deepseek_mtp).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from bestserve.catalog import load_model
from bestserve.errors import InputError, nearest_names, shown
from bestserve.models.step.architecture import Architecture, Ffn, LayerGroup
from bestserve.models.step.parameters import group_parameters, parameter_counts

METHODS = ("eagle", "eagle3", "mtp", "draft_model", "ngram", "suffix")
_WITHOUT = ("ngram", "suffix")
DRAFT_VOCABULARY = 32_000
"""Of EAGLE-3 heads whose config states none: that of the published heads."""
LONGEST = 10_000


def drafting(speculative_config: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a speculative configuration as a mapping, checked; {} for none.

    >>> drafting('{"method": "ngram", "num_speculative_tokens": 3}')["method"]
    'ngram'
    """
    if not speculative_config:
        return {}
    given: Any = speculative_config
    if isinstance(given, str):
        try:
            given = json.loads(given[:LONGEST])
        except (ValueError, RecursionError):
            given = None
    if not isinstance(given, Mapping):
        raise InputError(
            "speculative_config must be a JSON object as vLLM takes it, "
            'e.g. {"method": "eagle3", "num_speculative_tokens": 3}'
        )
    method = given.get("method", "draft_model" if given.get("model") else None)
    if isinstance(method, str) and method.endswith("_mtp"):
        method = "mtp"  # vLLM's older names: deepseek_mtp, qwen3_next_mtp, …
    if method not in METHODS:
        near = ", ".join(nearest_names(str(method)[:40], METHODS) or METHODS)
        raise InputError(f"speculative_config: method {shown(method, 40)} is not known; {near}")
    return {**given, "method": method}


def with_draft(arch: Architecture, speculative_config: Mapping[str, Any]) -> Architecture:
    """Return the architecture with what drafting keeps on the GPU beside it.

    Raises InputError where the checkpoint has no such layers, or the head's shapes are not known.
    """
    method = speculative_config.get("method")
    if method is None or method in _WITHOUT:
        return arch
    name = speculative_config.get("model")
    if name is not None and not isinstance(name, str):
        raise InputError("speculative_config: model must be a name or the path of a config.json")
    hidden, last = arch.hidden_size, arch.layers[-1]
    if method == "mtp":
        if not arch.mtp_layers:
            raise InputError(
                "speculative_config: method mtp, but the checkpoint has no layers for "
                "multi-token prediction"
            )
        projections = arch.mtp_layers * (2 * hidden * hidden + 3 * hidden)
        return _beside(arch, arch.mtp_layers, last, projections)
    if method == "draft_model":
        if name is None:
            raise InputError("speculative_config: method draft_model needs a model")
        return _whole(arch, load_model(name).architecture)
    head = load_model(name).architecture if name else None
    width = _width(arch, head)
    attention = next((g.attention for g in arch.layers if g.attention.kind == "full"), None)
    if head is not None:
        attention = head.layers[0].attention
    if attention is None:
        raise InputError(f"speculative_config: give the {method} head's model: its shapes are open")
    states = 3 if method == "eagle3" else 2
    extra = states * hidden * hidden
    if method == "eagle3":
        keys = attention.num_kv_heads * attention.head_dim
        extra += hidden * (attention.num_heads * attention.head_dim + 2 * keys)  # twice as wide in
        extra += DRAFT_VOCABULARY * hidden
    layer = LayerGroup(count=1, attention=attention, ffn=Ffn(kind="dense", intermediate_size=width))
    return _beside(arch, head.num_layers if head else 1, layer, extra)


def _width(arch: Architecture, head: Architecture | None) -> int:
    for layers in (head.layers if head else (), arch.layers):
        for group in layers:
            if group.ffn.kind == "dense":
                return group.ffn.intermediate_size
    raise InputError(
        "speculative_config: give the head's model (a config.json): a mixture of experts does not "
        "say how wide it is"
    )


def _beside(arch: Architecture, count: int, layer: LayerGroup, extra: int) -> Architecture:
    """Return the architecture with `count` more layers and `extra` more parameters."""
    order = arch.order or tuple(
        index for index, group in enumerate(arch.groups) for _ in range(group.count)
    )
    return dataclasses.replace(
        arch,
        groups=(*arch.groups, dataclasses.replace(layer, count=count)),
        order=(*order, *(len(arch.groups),) * count),
        extra_parameters=arch.extra_parameters + extra,
    )


def _whole(arch: Architecture, draft: Architecture) -> Architecture:
    """Return the architecture with all layers of a draft model, whose hidden size may differ."""
    counted = 0
    for group in draft.groups:
        counted += group.count * group_parameters(group, arch).layer
        arch = _beside(arch, group.count, group, 0)
    # The layers cache what the draft caches; their weights are those of its own hidden size.
    rest = parameter_counts(draft).total - counted
    return dataclasses.replace(arch, extra_parameters=arch.extra_parameters + rest)
