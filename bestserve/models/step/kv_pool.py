"""The KV cache as engines hold it: blocks of pages, layers in groups, per kind of layer.

vLLM (since V1) divides the memory into blocks that serve every layer of a group. Layers of one
kind are cut into groups of equal size, padded, so that a block has one size for all kinds; of each
group a request then takes

    full or chunked attention   ⌈length / block⌉ blocks
    sliding window              ⌈min(length, window − 1 + max_num_batched_tokens) / block⌉ + 1
    recurrent state             1

where layers whose page is smaller than the largest get more tokens in a block. Source: vLLM,
`v1/core/kv_cache_utils.py` and `v1/kv_cache_interface.py`; its start-up line "Maximum concurrency"
is this count. While it serves, blocks behind a window are freed at every step
(`v1/core/single_type_kv_cache_manager.py`), so that only the tokens of the step under way are held
beyond the windows: with `max_num_batched_tokens` 1 this is what a decoding request holds. An engine
that publishes KV events for a router has no such groups (`config/vllm.py`): every layer then holds
every token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bestserve.models.step.architecture import Attention, LayerGroup
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.sharding import kv_heads_per_gpu, value_dim

MERGE = 1.25
"""Kinds of layers whose numbers differ by less than this factor share the larger group size."""

Layers = tuple[tuple[LayerGroup, float], ...]
"""(group, how many of its layers a GPU holds)."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Layers that keep the same: `page` bytes a token (a state: bytes a sequence)."""

    layers: float
    page: float
    window: int = 0
    state: bool = False


def request_bytes(
    layers: Layers,
    length: float,
    kv_bytes: float,
    tp: int,
    engine: EngineConstants,
    constants: OperatorConstants = DEFAULT,
) -> float:
    """Return what one request of `length` tokens takes of the cache on one of tp GPUs [B]."""
    kinds = _kinds(layers, kv_bytes, tp, constants)
    if engine.kv_groups and engine.kv_events:
        return sum(k.layers * (k.page if k.state else k.page * length) for k in kinds)
    if not engine.kv_groups or len(kinds) <= 1:
        return sum(kind.layers * _plainly(kind, length, engine) for kind in kinds)
    attention = [kind for kind in kinds if not kind.state]
    uneven = len({round(kind.page, 6) for kind in attention}) > 1
    if uneven and not engine.kv_uneven_pages:
        return sum(
            kind.layers * (kind.page if kind.state else kind.page * length) for kind in kinds
        )
    return _in_groups(kinds, attention, length, engine)


def _in_groups(
    kinds: list[_Kind], attention: list[_Kind], length: float, engine: EngineConstants
) -> float:
    block = float(engine.kv_block)
    largest = max((kind.page for kind in attention), default=0.0)
    page = largest * block
    state = max((kind.page for kind in kinds if kind.state), default=0.0)
    if largest and state > page:
        block = engine.kv_block * math.ceil(state / page)
        page = largest * block
    page = page or state
    counts = [kind.layers for kind in kinds]
    size = max(counts) if max(counts) < MERGE * min(counts) else min(counts)
    blocks = 0.0
    for kind in kinds:
        groups = math.ceil(kind.layers / size - 1e-9)
        if kind.state:
            blocks += groups
            continue
        tokens = block * largest / kind.page
        held = _held(kind, length, engine) / tokens
        # Small blocks: half a block a sequence is counted where sequences are; large ones round up.
        whole = math.ceil(held) if tokens > engine.kv_block else held
        blocks += groups * (whole + (1 if kind.window else 0))
    return blocks * page * size


def _plainly(kind: _Kind, length: float, engine: EngineConstants) -> float:
    return kind.page if kind.state else kind.page * _held(kind, length, engine)


def _held(kind: _Kind, length: float, engine: EngineConstants) -> float:
    """Return the tokens of a request that a layer keeps [tokens]."""
    if not kind.window:
        return length
    reach = kind.window
    if engine.kv_groups:  # the window of what is computed, and a step's tokens ahead of it
        reach += engine.max_num_batched_tokens - 1
    return min(length, reach)


def _kinds(layers: Layers, kv_bytes: float, tp: int, constants: OperatorConstants) -> list[_Kind]:
    found: dict[tuple[float, int, bool], float] = {}
    for group, count in layers:
        for page, window, state, share in _pages(group.attention, kv_bytes, tp, constants):
            key = (page, window, state)
            found[key] = found.get(key, 0.0) + count * share
    return [_Kind(n, page, window, state) for (page, window, state), n in found.items()]


def _pages(
    attention: Attention, kv_bytes: float, tp: int, constants: OperatorConstants
) -> list[tuple[float, int, bool, float]]:
    """Return (bytes a token or a state, window, is a state, caches of this kind in a layer)."""
    if attention.kind == "none" or attention.borrows_kv:
        return []
    if attention.kind == "linear":
        state = attention.state_elements * constants.linear.state_bytes
        state += 2.0 * attention.convolution_elements * max(attention.linear_conv - 1, 0)
        return [(state / tp, 0, True, 1.0)]
    if attention.kind == "mla":
        latent = (attention.kv_lora_rank + attention.qk_rope_head_dim) * kv_bytes
        if attention.compress < 0:
            return [(latent + attention.index_dim, 0, False, 1.0)]  # indexer keys are fp8
        caches = [(latent, attention.window, False, 1.0)]
        if attention.compress:
            entry = (latent + attention.index_dim) / attention.compress
            caches.append((entry, 0, False, 1.0))
        return caches
    width = attention.head_dim + value_dim(attention)
    window = attention.window if attention.kind == "sliding" else 0
    return [(kv_heads_per_gpu(attention, tp) * width * kv_bytes, window, False, 1.0)]
