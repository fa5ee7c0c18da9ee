"""GPU memory of one instance: weights, activations, reserve, and the KV cache that is left.

All figures are per GPU and of the fullest pipeline stage unless they say otherwise. Arithmetic
that does not work out is data (`MemoryPlan.fits`), not an exception: a search wants the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bestserve.models.step.architecture import Architecture, Attention, LayerGroup
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.engine import EngineConstants, MemoryRule
from bestserve.models.step.kv_pool import request_bytes
from bestserve.models.step.parameters import ParameterCounts, parameter_counts
from bestserve.models.step.sharding import (
    attention_matrices,
    expert_tp,
    kv_heads_per_gpu,
    value_dim,
)

TYPICAL_CONTEXT = 2048.0
"""Context at which sliding windows and recurrent state are averaged over tokens [tokens]."""

LONG = float(1 << 24)
"""A length beyond every window and every step [tokens]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Where the memory of a GPU goes [B], and what KV capacity results.

    memory : what the engine sees [B]
    weights_* : attention, dense feed-forward and shared experts, routed experts, embedding and
        LM head, the rest (norms, routers, a copy of each tower)
    activations : peak for max_num_batched_tokens; reserve : CUDA context, graphs, communication
    kv_bytes : left for the KV cache, < 0 if the weights do not fit
    kv_bytes_per_token : one token of a sequence of typical length, on one GPU
    kv_bytes_per_token_total : the same over all layers and heads, stored once (what a transfer
        between instances moves)
    kv_bytes_per_sequence : state that does not grow with the sequence, on one GPU
    kv_capacity_tokens : of one lane, as the engine counts when it starts; lanes : lanes per
        instance (pp of them)
    kv_serving_tokens : of one lane while it serves: windowed layers hold what is ahead of their
        windows for the tokens of one step, not for every request
    """

    memory: float
    utilization: float
    rule: MemoryRule
    weights_attention: float
    weights_ffn: float
    weights_experts: float
    weights_embedding: float
    weights_other: float
    activations: float
    reserve: float
    kv_bytes: float
    kv_bytes_per_token: float
    kv_bytes_per_token_total: float
    kv_bytes_per_sequence: float
    kv_capacity_tokens: float
    kv_serving_tokens: float
    context_len: float
    lanes: int

    @property
    def weights(self) -> float:
        """Weights on one GPU [B]."""
        return (
            self.weights_attention
            + self.weights_ffn
            + self.weights_experts
            + self.weights_embedding
            + self.weights_other
        )

    @property
    def fits(self) -> bool:
        """Whether at least one sequence of the typical length fits in every lane."""
        return self.kv_capacity_tokens >= self.context_len

    def explain(self) -> str:
        """Return the arithmetic in one line."""
        gb = [f"{x / 1e9:.1f}" for x in (self.weights, self.activations, self.reserve)]
        whole = f"{self.memory / 1e9:.1f}"
        usable = f"{self.utilization:g} × {whole}"
        formula = {
            "total": f"{usable} − weights {gb[0]} − activations {gb[1]} − reserve {gb[2]}",
            "static": f"{self.utilization:g} × ({whole} − reserve {gb[2]}) − weights {gb[0]}",
            "free": (
                f"{self.utilization:g} × ({whole} − weights {gb[0]}"
                f" − activations {gb[1]} − reserve {gb[2]})"
            ),
        }[self.rule]
        line = f"per GPU {formula} = {self.kv_bytes / 1e9:.1f} GB for KV"
        if self.kv_bytes <= 0:
            return f"{line}: the weights do not fit"
        tokens = f"{self.kv_capacity_tokens:,.0f} tokens per lane"
        verdict = "" if self.fits else f", less than one sequence of {self.context_len:,.0f}"
        return f"{line} at {self.kv_bytes_per_token / 1e3:.1f} kB/token: {tokens}{verdict}"


def memory_plan(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    *,
    context_len: float = TYPICAL_CONTEXT,
    constants: OperatorConstants = DEFAULT,
) -> MemoryPlan:
    """Return the memory of one GPU of an instance and the KV capacity of one lane.

    context_len : typical length of a sequence, prompt and output [tokens]; it decides what a
        sliding window and a recurrent state cost per token
    """
    counts = parameter_counts(arch)
    stage = _largest_stage(arch, parallel.pp)
    padding = _expert_padding(arch, device, parallel, formats, engine)
    weights = _weights(arch, counts, stage, parallel, formats, padding)
    activations = activation_peak(arch, parallel, formats, engine)
    total = sum(weights)
    shared = engine.communication_bytes(device) if parallel.gpus > 1 else 0.0
    reserve = engine.memory_reserve + shared
    reserve += engine.memory_graphs if engine.cuda_graphs else 0.0
    usable = engine.gpu_memory_utilization
    if engine.memory_rule == "free":
        left = usable * (device.visible_bytes - total - activations - reserve)
    elif engine.memory_rule == "static":
        left = usable * (device.visible_bytes - reserve) - total
    else:
        left = usable * device.visible_bytes - total - activations - reserve

    def held(length: float, constants_of: EngineConstants = engine) -> float:
        return request_bytes(stage, length, formats.kv_bytes, parallel.tp, constants_of, constants)

    behind = engine
    if any(group.attention.window for group in arch.groups):
        behind = replace(engine, max_num_batched_tokens=1)  # windows alone, no step ahead of them
    ahead = held(LONG) - held(LONG, behind)
    per_token = held(context_len) / context_len
    sequences_fixed = held(0.0)
    whole = engine.kv_groups and engine.kv_events  # windows do not shorten what layers hold
    moved = sum(
        group.count
        * kv_bytes_of_layer(
            replace(group.attention, kind="full")
            if whole and group.attention.kind == "sliding"
            else group.attention,
            formats.kv_bytes,
            context_len,
            1,
            constants,
        )
        for group in arch.groups
    )
    capacity = serving = math.inf
    if per_token > 0:
        capacity = max(left, 0.0) / per_token
        serving = max(capacity, (left - ahead) / (held(context_len, behind) / context_len))
    lanes_share = parallel.dp / parallel.pp
    return MemoryPlan(
        memory=device.visible_bytes,
        utilization=usable,
        rule=engine.memory_rule,
        weights_attention=weights[0],
        weights_ffn=weights[1],
        weights_experts=weights[2],
        weights_embedding=weights[3],
        weights_other=weights[4],
        activations=activations,
        reserve=reserve,
        kv_bytes=left,
        kv_bytes_per_token=per_token,
        kv_bytes_per_token_total=moved / context_len,
        kv_bytes_per_sequence=sequences_fixed,
        kv_capacity_tokens=capacity * lanes_share,
        kv_serving_tokens=serving * lanes_share,
        context_len=context_len,
        lanes=parallel.pp,
    )


def kv_bytes_of_layer(
    attention: Attention,
    kv_bytes: float,
    context_len: float,
    tp: int = 1,
    constants: OperatorConstants = DEFAULT,
) -> float:
    """Return what one layer keeps of one sequence of `context_len` tokens on one of tp GPUs [B].

    Full attention keeps every token, a sliding window at most `window`, MLA one latent whatever
    tp, linear attention a state (and its convolution's last inputs) that does not grow.

    >>> gqa = Attention(kind="full", num_heads=64, num_kv_heads=8, head_dim=128)
    >>> kv_bytes_of_layer(gqa, 2.0, 1.0)
    4096.0
    """
    if attention.kind == "none" or attention.borrows_kv:
        return 0.0
    if attention.kind == "linear":
        state = attention.state_elements * constants.linear.state_bytes
        convolution = 2.0 * attention.convolution_elements * max(attention.linear_conv - 1, 0)
        return (state + convolution) / tp
    if attention.kind == "mla":
        latent = (attention.kv_lora_rank + attention.qk_rope_head_dim) * kv_bytes
        kept = context_len
        if attention.compress >= 0:
            kept = context_len / attention.compress if attention.compress else 0.0
        recent = min(context_len, attention.window) * latent if attention.window else 0.0
        return recent + kept * (latent + attention.index_dim)  # indexer keys are fp8
    width = attention.head_dim + value_dim(attention)
    kept = min(context_len, attention.window) if attention.kind == "sliding" else context_len
    return kept * kv_heads_per_gpu(attention, tp) * width * kv_bytes


def activation_peak(
    arch: Architecture, parallel: Parallelism, formats: Formats, engine: EngineConstants
) -> float:
    """Return the peak of the profiling run on one GPU: a full step, or the sampler after it [B].

    The step holds residual, hidden state and one copy, and the widest inner layer in and out
    (bf16); experts in FP8 also the workspaces of their kernels. The sampler holds logits of
    max_num_seqs sequences over the whole vocabulary. What is larger counts. An estimate [derived].
    """
    inner = 0.0
    for group in arch.groups:
        ffn, attention = group.ffn, group.attention
        if ffn.kind == "moe":
            rows = ffn.top_k * parallel.dp / parallel.ep
            width = rows * (arch.hidden_size + 2.0 * ffn.intermediate_size / expert_tp(parallel))
            if formats.parts.experts.precision in ("fp8", "fp8_block"):
                padding = 128.0 * ffn.num_experts / engine.max_num_batched_tokens
                width += engine.expert_rows / 2.0 * (rows + padding) * arch.hidden_size
        else:
            width = (3.0 if ffn.gated else 2.0) * ffn.intermediate_size / parallel.tp
        matrices = attention_matrices(attention, arch.hidden_size, parallel.tp)
        heads = max((m.n for m in matrices), default=0.0)
        inner = max(inner, width, 2.0 * heads)
    step = engine.max_num_batched_tokens * 2.0 * (3.0 * arch.hidden_size + inner)
    sequences = min(engine.max_num_seqs, engine.max_num_batched_tokens)
    return max(step, sequences * arch.vocab_size * engine.sampler_bytes)


def _largest_stage(arch: Architecture, pp: int) -> tuple[tuple[LayerGroup, float], ...]:
    """Return the layers of the fullest stage, each group in proportion [(group, layers)]."""
    layers = math.ceil(arch.num_layers / pp)
    return tuple((g, g.count * layers / arch.num_layers) for g in arch.groups)


def _weights(
    arch: Architecture,
    counts: ParameterCounts,
    stage: tuple[tuple[LayerGroup, float], ...],
    parallel: Parallelism,
    formats: Formats,
    expert_padding: float,
) -> tuple[float, float, float, float, float]:
    """Return weights of the fullest stage by component: what `MemoryPlan.weights_*` hold [B]."""
    stored = formats.parts
    attention = ffn = routed = other = 0.0
    for (group, layers), layer in zip(stage, counts.groups, strict=True):
        share = _attention_share(group.attention, arch.hidden_size, parallel.tp)
        attention += layers * layer.attention * share * stored.attention.bytes
        dense = layer.dense_ffn + layer.shared_experts
        ffn += layers * dense / parallel.tp * stored.ffn.bytes
        share = expert_padding / (parallel.tp * parallel.dp)
        routed += layers * layer.experts * share * stored.experts.bytes
        other += layers * (layer.router + layer.norms) * 2.0
    final_norm = counts.norms - sum(g.count * g.norms for g in counts.groups)
    other += (final_norm + counts.extra / (parallel.pp * parallel.tp) + arch.tower_parameters) * 2.0
    # Tied weights are still needed by the first and by the last stage.
    embedding = counts.embedding * stored.embedding.bytes
    head = counts.lm_head * stored.head.bytes
    ends = max(embedding, head) if parallel.pp > 1 else embedding + head
    return attention, ffn, routed, ends / parallel.tp, other


def _expert_padding(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
) -> float:
    """Return by how much expert matrices are larger in memory than stored [1], ≥ 1."""
    experts = [g.ffn for g in arch.groups if g.ffn.kind == "moe"]
    if not experts:
        return 1.0
    own = max(ffn.intermediate_size for ffn in experts) / expert_tp(parallel)
    if device.generation in ("cdna3", "cdna4"):
        multiple = engine.rocm_expert_multiple
        return _padded(own, multiple) if own > multiple / 2 else 1.0
    if formats.parts.experts.precision == "mxfp4":
        hidden = experts[0].routed_hidden_size or arch.hidden_size
        across = _padded(hidden, engine.mxfp4_hidden_multiple)
        return across * _padded(own, engine.mxfp4_width_multiple)
    return 1.0


def _padded(side: float, multiple: int) -> float:
    """Return by how much a side grows when it is rounded up to a multiple; 0: not at all [1]."""
    return multiple * math.ceil(side / multiple) / side if multiple else 1.0


def _attention_share(attention: Attention, hidden: int, tp: int) -> float:
    """Return the part of an attention layer's weights that one of tp GPUs holds [1].

    More than 1/tp where KV heads or latent down-projections are replicated.
    """
    if attention.kind == "none":
        return 1.0 / tp
    own = sum(m.elements for m in attention_matrices(attention, hidden, tp))
    return own / sum(m.elements for m in attention_matrices(attention, hidden, 1))
