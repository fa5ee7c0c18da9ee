"""The linear layers of an architecture under the names that checkpoints give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup

Part = Literal["attention", "ffn", "experts", "embedding", "head"]


@dataclass(frozen=True, slots=True)
class Naming:
    """What a family calls its modules, where it differs from Llama's names.

    roots : what stands before the number of a layer
    attention, linear, ffn, experts, shared : containers inside a layer
    gate, up, down : matrices of the dense part and of shared experts; expert_* : of one expert
    """

    roots: tuple[str, ...] = ("model.layers",)
    attention: str = "self_attn"
    linear: str = "linear_attn"
    ffn: str = "mlp"
    experts: str = "mlp.experts"
    shared: tuple[str, ...] = ("mlp.shared_experts", "mlp.shared_expert")
    matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    expert_matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    projections: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "o_proj")


_W = ("w1", "w3", "w2")
NESTED_ROOTS = ("model.language_model.layers", "language_model.model.layers", "model.layers")

NAMES: dict[str, Naming] = {
    "mixtral": Naming(experts="block_sparse_moe.experts", expert_matrices=_W),
    "minimax_m2": Naming(experts="block_sparse_moe.experts", expert_matrices=_W),
    "opt": Naming(
        roots=("model.decoder.layers",),
        ffn="",
        matrices=("", "fc1", "fc2"),
        projections=("q_proj", "k_proj", "v_proj", "out_proj"),
    ),
    "llama4_text": Naming(
        ffn="feed_forward",
        experts="feed_forward.experts",
        shared=("feed_forward.shared_expert",),
    ),
    **dict.fromkeys(
        ("nemotron_h",),
        Naming(
            roots=("backbone.layers", "model.layers"),
            attention="mixer",
            linear="mixer",
            ffn="mixer",
            experts="mixer.experts",
            shared=("mixer.shared_experts",),
        ),
    ),
    **dict.fromkeys(
        ("mamba", "falcon_mamba", "mamba2"),
        Naming(roots=("backbone.layers", "model.layers"), linear="mixer"),
    ),
    "jamba": Naming(linear="mamba", ffn="feed_forward", experts="feed_forward.experts"),
    "bamba": Naming(linear="mamba", ffn="feed_forward"),
    "falcon_h1": Naming(linear="mamba", ffn="feed_forward"),
    "granitemoehybrid": Naming(
        linear="mamba", ffn="shared_mlp", experts="block_sparse_moe.experts", shared=("shared_mlp",)
    ),
    "kimi_linear": Naming(
        linear="self_attn", experts="block_sparse_moe.experts", expert_matrices=_W
    ),
    "minimax": Naming(linear="self_attn", experts="block_sparse_moe.experts", expert_matrices=_W),
    "lfm2": Naming(linear="conv", ffn="feed_forward", matrices=_W),
    "lfm2_moe": Naming(
        linear="conv",
        ffn="feed_forward",
        matrices=_W,
        experts="feed_forward.experts",
        expert_matrices=_W,
    ),
    **dict.fromkeys(
        ("deepseek_v4", "deepseek_ref"),
        Naming(
            roots=("layers", "model.layers"),
            attention="attn",
            ffn="ffn",
            experts="ffn.experts",
            shared=("ffn.shared_experts",),
            matrices=_W,
            expert_matrices=_W,
        ),
    ),
    "phi": Naming(ffn="mlp", matrices=("", "fc1", "fc2")),
    "starcoder2": Naming(matrices=("", "c_fc", "c_proj")),
    "gpt2": Naming(roots=("transformer.h",), attention="attn", matrices=("", "c_fc", "c_proj")),
    "falcon": Naming(
        roots=("transformer.h",),
        attention="self_attention",
        matrices=("", "dense_h_to_4h", "dense_4h_to_h"),
    ),
    "gemma4_text": Naming(experts="experts", shared=("mlp",)),
    "step3p5": Naming(experts="moe", shared=("share_expert",)),
}


@dataclass(frozen=True, slots=True)
class Module:
    """One linear layer, or the part of a layer's experts that one name stands for.

    layer : its decoder layer, −1 outside; names : full spellings; elements : weights [1]
    """

    part: Part
    layer: int
    names: tuple[str, ...]
    elements: float


def modules(
    arch: Architecture,
    model_type: str,
    *,
    nested: bool,
    every_layer: bool = True,
    every_expert: bool = False,
) -> tuple[Module, ...]:
    """Return all linear layers, embedding and head included.

    nested : the language model is a part of a multimodal one
    every_layer : otherwise the first layer of each group stands for all of them
    every_expert : each expert by its own name; otherwise the first and the last stand for all
    """
    naming = NAMES.get(model_type, Naming())
    roots = (*NESTED_ROOTS, *naming.roots) if nested else naming.roots
    ends = float(arch.vocab_size * arch.hidden_size)
    found = [
        Module("embedding", -1, ("model.embed_tokens",), ends),
        Module("head", -1, ("lm_head",), 0.0 if arch.tie_word_embeddings else ends),
    ]
    numbered = list(enumerate(arch.layers))
    if not every_layer:
        numbered = list({group: (layer, group) for layer, group in reversed(numbered)}.values())
    for layer, group in numbered:
        times = 1 if every_layer else group.count
        for part, names, elements in _of_layer(arch, group, naming, every_expert):
            full = tuple(f"{root}.{layer}.{name}" for root in roots for name in names)
            found.append(Module(part, layer, full, elements * times))
    return tuple(found)


Named = tuple[Part, tuple[str, ...], float]


def _of_layer(
    arch: Architecture, group: LayerGroup, naming: Naming, every_expert: bool
) -> Iterable[Named]:
    yield from _attention(group.attention, arch.hidden_size, naming)
    yield from _ffn(group.ffn, arch.hidden_size, naming, every_expert)


def _attention(attention: Attention, hidden: int, naming: Naming) -> Iterable[Named]:
    inside = naming.attention
    heads = attention.num_heads
    values = heads * (attention.v_head_dim or attention.head_dim)
    q_name, k_name, v_name, o_name = naming.projections
    if attention.kind == "none":
        return
    if attention.kind == "linear":
        yield from _recurrent(attention, hidden, naming)
        return
    if attention.kind == "mla":
        down = attention.kv_lora_rank + attention.qk_rope_head_dim
        query = heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
        rank = attention.q_lora_rank
        if rank:
            yield "attention", _in(inside, "q_a_proj", "fused_qkv_a_proj"), hidden * rank
            yield "attention", _in(inside, "q_b_proj"), rank * query
        else:
            yield "attention", _in(inside, "q_proj"), hidden * query
        names = _in(inside, "kv_a_proj_with_mqa", "fused_qkv_a_proj")
        yield "attention", names, hidden * down
        up = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
        yield "attention", _in(inside, "kv_b_proj"), attention.kv_lora_rank * up
        yield "attention", _in(inside, "o_proj"), heads * attention.v_head_dim * hidden
        if attention.index_heads:
            width = attention.index_heads * attention.index_dim
            yield "attention", _in(inside, "indexer.wq_b"), (rank or hidden) * width
            yield "attention", _in(inside, "indexer.wk"), hidden * attention.index_dim
            names = _in(inside, "indexer.weights_proj", "indexers_proj")
            yield "attention", names, hidden * attention.index_heads
        return
    query = heads * attention.head_dim * (2 if attention.output_gate else 1)
    key = attention.num_kv_heads * attention.head_dim
    value = attention.num_kv_heads * (attention.v_head_dim or attention.head_dim)
    yield "attention", _in(inside, q_name, "qkv_proj"), hidden * query
    if not attention.borrows_kv:
        yield "attention", _in(inside, k_name, "qkv_proj"), hidden * key
    if not attention.shared_kv and not attention.borrows_kv:
        yield "attention", _in(inside, v_name, "qkv_proj"), hidden * value
    yield "attention", _in(inside, o_name), values * hidden


def _recurrent(attention: Attention, hidden: int, naming: Naming) -> Iterable[Named]:
    inside = naming.linear
    heads = attention.linear_value_heads
    keys = attention.linear_key_heads * attention.linear_key_dim
    values = heads * attention.linear_value_dim
    form = attention.linear_form
    if form == "gated_delta":
        yield "attention", _in(inside, "in_proj_qkv", "in_proj_qkvz"), hidden * (2 * keys + values)
        yield "attention", _in(inside, "in_proj_z", "in_proj_qkvz"), hidden * values
        for name in ("in_proj_b", "in_proj_a"):
            yield "attention", _in(inside, name, "in_proj_ba"), hidden * heads
        yield "attention", _in(inside, "out_proj"), values * hidden
    elif form == "kda":
        for name, width in (("q_proj", keys), ("k_proj", keys), ("v_proj", values)):
            yield "attention", _in(inside, name), hidden * width
        low = attention.linear_value_dim
        for gate in "fg":
            yield "attention", _in(inside, f"{gate}_a_proj"), hidden * low
            yield "attention", _in(inside, f"{gate}_b_proj"), low * values
        yield "attention", _in(inside, "b_proj"), hidden * heads
        yield "attention", _in(inside, "o_proj"), values * hidden
    elif form == "lightning":
        yield "attention", _in(inside, "qkv_proj"), hidden * 3 * values
        yield "attention", _in(inside, "output_gate"), hidden * values
        yield "attention", _in(inside, "out_proj"), values * hidden
    else:
        inputs = {"mamba2": 2 * values + 2 * keys + heads, "mamba1": 2 * values}.get(
            form, 3 * values
        )
        yield "attention", _in(inside, "in_proj"), hidden * inputs
        yield "attention", _in(inside, "out_proj"), values * hidden


def _ffn(ffn: Ffn, hidden: int, naming: Naming, every_expert: bool) -> Iterable[Named]:
    if ffn.kind == "none":
        return
    if ffn.kind == "dense":
        containers: tuple[str, ...] = (naming.ffn,)
        yield from _dense(containers, naming.matrices, ffn, ffn.intermediate_size, hidden)
        return
    if ffn.shared_intermediate_size:
        width = ffn.shared_intermediate_size
        yield from _dense(naming.shared, naming.matrices, ffn, width, hidden)
    matrix = float((ffn.routed_hidden_size or hidden) * ffn.intermediate_size)
    numbers = range(ffn.num_experts) if every_expert else {0, ffn.num_experts - 1}
    share = ffn.num_experts / len(numbers)
    gate, up, down = naming.expert_matrices
    chosen = ((gate, "gate_up_proj"),) if ffn.gated else ()
    for number in numbers:
        for name, fused in (*chosen, (up, "gate_up_proj"), (down, "")):
            names = _in(f"{naming.experts}.{number}", name)
            whole = (*_in(naming.experts, fused or name), naming.experts)
            yield "experts", (*names, *whole), matrix * share


def _dense(
    containers: tuple[str, ...],
    matrices: tuple[str, str, str],
    ffn: Ffn,
    width: int,
    hidden: int,
) -> Iterable[Named]:
    gate, up, down = matrices
    chosen = ((gate, "gate_up_proj"),) if ffn.gated else ()
    for name, fused in (*chosen, (up, "gate_up_proj" if ffn.gated else ""), (down, "")):
        names = tuple(n for c in containers for n in _in(c, name, *([fused] if fused else [])))
        yield "ffn", names, float(hidden * width)


def _in(container: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{container}.{name}" if container else name for name in names)
