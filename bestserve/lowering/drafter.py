"""What drafts tokens: its layers beside the model, and as a network of its own.

Multi-token prediction runs the checkpoint's own extra layers; EAGLE a decoder layer behind a
projection of two hidden states (EAGLE-3: three, with a vocabulary of its own); a draft model all of
itself. Sources: Li et al. 2024, arXiv:2401.15077 and 2025, arXiv:2503.01840; DeepSeek-AI 2024,
arXiv:2412.19437 section 2.2; vLLM's `model_executor/models` (llama_eagle, llama_eagle3,
deepseek_mtp).
"""

from __future__ import annotations

import dataclasses

from bestserve.catalog import find_model, load_model
from bestserve.errors import InputError
from bestserve.models.step.architecture import Architecture, Ffn, LayerGroup
from bestserve.models.step.parameters import group_parameters, parameter_counts
from bestserve.readers.paths import looks_like_path
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.specs.strategy import Pool

DRAFT_VOCABULARY = 32_000
"""Of EAGLE-3 heads whose config states none: that of the published heads."""


def refuse_undrafted(pool: Pool, config: SpeculativeConfig | None) -> None:
    """Raise InputError where a pool is to draft and nothing says by what."""
    if pool.drafts not in (None, 0) and config is None:
        raise InputError(
            f"{pool.options.lstrip('-')}: -spec{pool.drafts} drafts tokens by speculative_config, "
            "and none is given"
        )


def with_drafter(arch: Architecture, config: SpeculativeConfig | None) -> Architecture:
    """Return the architecture with what drafting keeps on the GPU beside it.

    Raises InputError where the checkpoint has no such layers, or the head's shapes are not known.
    """
    if config is None or not config.drafter:
        return arch
    if config.method == "draft_model":
        assert config.model is not None
        return _whole(arch, load_model(config.model).architecture)
    hidden = arch.hidden_size
    if config.method == "mtp":
        projections = arch.mtp_layers * (2 * hidden * hidden + 3 * hidden)
        return _beside(arch, arch.mtp_layers, _mtp_layer(arch), projections)
    count, layer = _head(arch, config)
    attention = layer.attention
    extra = (3 if config.method == "eagle3" else 2) * hidden * hidden
    if config.method == "eagle3":
        keys = attention.num_kv_heads * attention.head_dim
        extra += hidden * (attention.num_heads * attention.head_dim + 2 * keys)  # twice as wide in
        extra += DRAFT_VOCABULARY * hidden
    return _beside(arch, count, layer, extra)


def drafter(arch: Architecture, config: SpeculativeConfig) -> Architecture:
    """Return what drafts as a network of its own: one pass of it drafts one token.

    Raises as `with_drafter`; only where `config.drafter`.
    """
    if config.method == "draft_model":
        assert config.model is not None
        return load_model(config.model).architecture
    if config.method == "mtp":
        count, layer = 1, _mtp_layer(arch)
    else:
        count, layer = _head(arch, config)
    return Architecture(
        hidden_size=arch.hidden_size,
        vocab_size=DRAFT_VOCABULARY if config.method == "eagle3" else arch.vocab_size,
        groups=(dataclasses.replace(layer, count=count),),
    )


def _mtp_layer(arch: Architecture) -> LayerGroup:
    if not arch.mtp_layers:
        raise InputError(
            "speculative_config: method mtp, but the checkpoint has no layers for "
            "multi-token prediction"
        )
    return arch.layers[-1]


def _head(arch: Architecture, config: SpeculativeConfig) -> tuple[int, LayerGroup]:
    """Return how many layers an EAGLE head has, and one of them.

    A head whose record is not at hand is taken as one layer of the model, and beside a mixture of
    experts as wide as those that a token sees.
    """
    head = None
    if config.model and looks_like_path(config.model, ".json"):
        head = load_model(config.model).architecture
    elif config.model and (found := find_model(config.model)) is not None:
        head = found.architecture
    width = _width(arch, head)
    attention = next((g.attention for g in arch.layers if g.attention.kind == "full"), None)
    if head is not None:
        attention = head.layers[0].attention
    if attention is None:
        raise InputError(
            f"speculative_config: give the {config.method} head's model: its shapes are open"
        )
    layer = LayerGroup(count=1, attention=attention, ffn=Ffn(kind="dense", intermediate_size=width))
    return head.num_layers if head else 1, layer


def _width(arch: Architecture, head: Architecture | None) -> int:
    for layers in (head.layers if head else (), arch.layers):
        for group in layers:
            if group.ffn.kind == "dense":
                return group.ffn.intermediate_size
    last = arch.layers[-1].ffn
    return last.top_k * last.intermediate_size + last.shared_intermediate_size


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
