"""Exact parameter counts of a transformer from its shapes.

Counted: embedding, LM head, every decoder layer, the final norm. Not counted: layers for
multi-token prediction (they speculate, they do not serve the token) and vision or audio towers.

Weights as published with the models: Vaswani et al. 2017 (multi-head attention), Ainslie et al.
2023 (grouped queries), DeepSeek-AI 2024, arXiv:2405.04434 section 2.1 (MLA), Yang et al. 2024,
arXiv:2412.06464 (gated delta rule), Shazeer 2020, arXiv:2002.05202 (gated feed-forward).
"""

from __future__ import annotations

from dataclasses import dataclass

from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupParameters:
    """Parameters of ONE layer of a group [1]; the group has `count` of them."""

    count: int
    attention: int
    dense_ffn: int
    experts: int
    shared_experts: int
    router: int
    norms: int

    @property
    def layer(self) -> int:
        """Parameters of one layer [1]."""
        return (
            self.attention
            + self.dense_ffn
            + self.experts
            + self.shared_experts
            + self.router
            + self.norms
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters of a whole model [1], by part; `total` is their sum.

    lm_head : 0 if tied to the embedding
    active : what one token is multiplied with: all but the unused routed experts and the input
        embedding (a row look-up), the LM head included even if tied. Published "active" figures
        differ in whether they count embedding and head.
    groups : per layer group, in the order of `Architecture.groups`
    """

    embedding: int
    lm_head: int
    attention: int
    dense_ffn: int
    experts: int
    shared_experts: int
    router: int
    norms: int
    extra: int
    active: int
    groups: tuple[GroupParameters, ...]

    @property
    def total(self) -> int:
        """All parameters [1]."""
        return (
            self.embedding
            + self.lm_head
            + self.attention
            + self.dense_ffn
            + self.experts
            + self.shared_experts
            + self.router
            + self.norms
            + self.extra
        )


def attention_parameters(attention: Attention, hidden_size: int) -> int:
    """Parameters of one attention layer [1], its inner norms included.

    >>> gqa = Attention(kind="full", num_heads=32, num_kv_heads=8, head_dim=128)
    >>> attention_parameters(gqa, 4096)
    41943040
    """
    if attention.kind == "none":
        return attention.extra_parameters
    if attention.kind == "linear":
        return _recurrent(attention, hidden_size) + attention.extra_parameters
    if attention.kind == "mla":
        return _latent(attention, hidden_size) + attention.extra_parameters
    return _multi_head(attention, hidden_size) + attention.extra_parameters


def _multi_head(attention: Attention, hidden_size: int) -> int:
    value_dim = attention.v_head_dim or attention.head_dim
    query = attention.num_heads * attention.head_dim * (2 if attention.output_gate else 1)
    key = attention.num_kv_heads * attention.head_dim
    value = 0 if attention.shared_kv else attention.num_kv_heads * value_dim
    if attention.borrows_kv:
        key = value = 0
    count = hidden_size * (query + key + value) + attention.num_heads * value_dim * hidden_size
    if attention.bias:
        count += query + key + value
    if attention.o_bias:
        count += hidden_size
    if attention.qk_norm:
        norms = attention.num_heads if attention.qk_norm_heads else 1
        if not attention.borrows_kv:
            norms += attention.num_kv_heads if attention.qk_norm_heads else 1
        count += norms * attention.head_dim
    if attention.sinks:
        count += attention.num_heads
    return count


def _latent(attention: Attention, hidden_size: int) -> int:
    heads = attention.num_heads
    query = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    rank = attention.q_lora_rank
    # With a query rank: down, norm, up; without: one full matrix.
    count = hidden_size * rank + rank + rank * query if rank else hidden_size * query
    latent = attention.kv_lora_rank
    count += hidden_size * (latent + attention.qk_rope_head_dim) + latent
    count += latent * heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    count += heads * attention.v_head_dim * hidden_size
    if attention.bias:
        count += (rank or 0) + latent + attention.qk_rope_head_dim
    if attention.o_bias:
        count += hidden_size
    if attention.index_heads:
        count += (rank or hidden_size) * attention.index_heads * attention.index_dim
        count += hidden_size * (attention.index_dim + attention.index_heads)
        count += 2 * attention.index_dim  # its key norm is a LayerNorm: weight and bias
    return count


def _gated_delta(attention: Attention, hidden_size: int) -> int:
    key = attention.linear_key_heads * attention.linear_key_dim
    value = attention.linear_value_heads * attention.linear_value_dim
    count = hidden_size * (2 * key + 2 * value)  # q, k, v and the output gate
    count += hidden_size * 2 * attention.linear_value_heads  # write strength and decay
    count += (2 * key + value) * attention.linear_conv
    count += 2 * attention.linear_value_heads + attention.linear_value_dim
    return count + value * hidden_size


def _recurrent(attention: Attention, hidden_size: int) -> int:
    """Parameters of a layer with a recurrent state or a short convolution [1]."""
    form = attention.linear_form
    if form == "gated_delta":
        return _gated_delta(attention, hidden_size)
    heads, dim = attention.linear_value_heads, attention.linear_value_dim
    values = heads * dim
    keys = attention.linear_key_heads * attention.linear_key_dim
    out = values * hidden_size
    convolution = attention.convolution_elements * attention.linear_conv
    if form == "kda":  # low-rank decay and output gates, one write strength per head
        gates = 2 * (hidden_size * dim + dim * values) + hidden_size * heads
        return hidden_size * (2 * keys + values) + gates + convolution + values + heads + dim + out
    if form == "mamba2":  # gate, input, B, C, step size; A, D and its bias per head; gated norm
        inputs = hidden_size * (2 * values + 2 * keys + heads)
        return inputs + convolution + attention.convolution_elements + 3 * heads + values + out
    if form == "mamba1":  # B, C and the step size of a low rank hidden/16 depend on the input
        rank, state = -(-hidden_size // 16), attention.linear_key_dim
        steps = values * (rank + 2 * state) + rank * values + values
        return hidden_size * 2 * values + convolution + values + steps + values * (state + 1) + out
    if form == "lightning":
        return hidden_size * 4 * values + values + out
    return hidden_size * 3 * values + convolution + out


def dense_ffn_parameters(ffn: Ffn, hidden_size: int, intermediate_size: int) -> int:
    """Parameters of one feed-forward block, or of one expert, of the given width [1]."""
    matrices = 3 if ffn.gated else 2
    count = matrices * hidden_size * intermediate_size
    if ffn.bias:
        count += (matrices - 1) * intermediate_size + hidden_size
    return count


def group_parameters(group: LayerGroup, arch: Architecture) -> GroupParameters:
    """Parameters of one layer of `group` [1]."""
    hidden, ffn = arch.hidden_size, group.ffn
    dense = experts = shared = router = 0
    if ffn.kind == "none":
        pass
    elif ffn.kind == "dense":
        dense = dense_ffn_parameters(ffn, hidden, ffn.intermediate_size)
    else:
        routed = ffn.routed_hidden_size or hidden
        experts = ffn.num_experts * dense_ffn_parameters(ffn, routed, ffn.intermediate_size)
        router = ffn.num_experts * (hidden + (1 if ffn.router_bias else 0))
        if ffn.shared_intermediate_size:
            shared = dense_ffn_parameters(ffn, hidden, ffn.shared_intermediate_size)
            shared += hidden if ffn.shared_gate else 0
        shared += 2 * hidden * ffn.routed_hidden_size
    return GroupParameters(
        count=group.count,
        attention=attention_parameters(group.attention, hidden),
        dense_ffn=dense,
        experts=experts,
        shared_experts=shared,
        router=router,
        norms=arch.norms_per_layer * hidden * (2 if arch.norm_bias else 1),
    )


def parameter_counts(arch: Architecture) -> ParameterCounts:
    """Count the parameters of `arch`, by part.

    Example, Llama-3.1-8B (8.03 billion on its model card)::

        >>> llama = Architecture(hidden_size=4096, vocab_size=128256, groups=(LayerGroup(
        ...     count=32,
        ...     attention=Attention(kind="full", num_heads=32, num_kv_heads=8, head_dim=128),
        ...     ffn=Ffn(kind="dense", intermediate_size=14336)),))
        >>> parameter_counts(llama).total
        8030261248
    """
    groups = tuple(group_parameters(g, arch) for g in arch.groups)
    embedding = arch.vocab_size * arch.hidden_size
    final_norm = arch.hidden_size * (2 if arch.norm_bias else 1)
    attention = sum(g.count * g.attention for g in groups)
    dense = sum(g.count * g.dense_ffn for g in groups)
    shared = sum(g.count * g.shared_experts for g in groups)
    router = sum(g.count * g.router for g in groups)
    norms = sum(g.count * g.norms for g in groups) + final_norm
    always = attention + dense + shared + router + norms + arch.extra_parameters
    used = sum(
        g.count * g.experts * layer.ffn.top_k // layer.ffn.num_experts
        for g, layer in zip(groups, arch.groups, strict=True)
        if layer.ffn.kind == "moe"
    )
    return ParameterCounts(
        embedding=embedding,
        lm_head=0 if arch.tie_word_embeddings else embedding,
        attention=attention,
        dense_ffn=dense,
        experts=sum(g.count * g.experts for g in groups),
        shared_experts=shared,
        router=router,
        norms=norms,
        extra=arch.extra_parameters,
        active=always + used + embedding,
        groups=groups,
    )
