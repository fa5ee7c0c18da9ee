"""What of a layer one GPU holds: its share of every weight matrix and of the KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bestserve.models.step.architecture import Attention
from bestserve.models.step.device import Parallelism

Rows = Literal["tokens", "reach", "decodes", "emitting"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """An n×k weight matrix of one GPU and which rows of a step it multiplies.

    rows : "tokens" all tokens of the step; "reach" keys that prompts attend to; "decodes" one
        row per decoding sequence; "emitting" sequences that emit a token
    stored : False where it re-uses the weights of another matrix in another form
    """

    name: str
    n: float
    k: float
    rows: Rows = "tokens"
    stored: bool = True

    @property
    def elements(self) -> float:
        """Weights that this matrix adds to the GPU."""
        return self.n * self.k if self.stored else 0.0


def kv_heads_per_gpu(attention: Attention, tp: int) -> float:
    """Return KV heads on one GPU: at least one, so they are replicated once tp exceeds them."""
    return max(attention.num_kv_heads / tp, 1.0)


def value_dim(attention: Attention) -> int:
    """Return the width of a value head."""
    return attention.v_head_dim or attention.head_dim


def attention_matrices(attention: Attention, hidden: int, tp: int) -> tuple[Matrix, ...]:
    """Return the projections of one attention layer on one of `tp` GPUs.

    Down-projections of MLA are replicated, as engines do; its decode form multiplies by the
    up-projections absorbed into the query and output side, stored once.
    """
    heads = attention.num_heads / tp
    v_dim = value_dim(attention)
    if attention.kind == "mla":
        latent = attention.kv_lora_rank
        qk_dim = attention.qk_nope_head_dim + attention.qk_rope_head_dim
        down = latent + attention.qk_rope_head_dim
        query = (
            (
                Matrix("qkv_down", attention.q_lora_rank + down, hidden),
                Matrix("q_up", heads * qk_dim, attention.q_lora_rank),
            )
            if attention.q_lora_rank
            else (Matrix("q", heads * qk_dim, hidden), Matrix("kv_down", down, hidden))
        )
        return (
            *query,
            Matrix("kv_up", heads * (attention.qk_nope_head_dim + v_dim), latent, "reach"),
            Matrix("absorb_q", heads * latent, attention.qk_nope_head_dim, "decodes", stored=False),
            Matrix("absorb_v", heads * v_dim, latent, "decodes", stored=False),
            Matrix("out", hidden, heads * v_dim),
            *_indexer(attention, hidden),
        )
    if attention.kind == "none":
        return ()
    if attention.kind == "linear":
        values = attention.linear_value_heads * attention.linear_value_dim
        inputs = recurrent_inputs(attention) / tp
        return (Matrix("qkvz", inputs, hidden), Matrix("out", hidden, values / tp))
    query_width = heads * attention.head_dim * (2 if attention.output_gate else 1)
    kv_width = kv_heads_per_gpu(attention, tp) * (
        attention.head_dim + (0 if attention.shared_kv else v_dim)
    )
    if attention.borrows_kv:
        kv_width = 0.0
    return (
        Matrix("qkv", query_width + kv_width, hidden),
        Matrix("out", hidden, heads * v_dim),
    )


def recurrent_inputs(attention: Attention) -> int:
    """Return the width of all projections into a recurrent layer [1]."""
    keys = attention.linear_key_heads * attention.linear_key_dim
    values = attention.linear_value_heads * attention.linear_value_dim
    heads = attention.linear_value_heads
    return {
        "gated_delta": 2 * keys + 2 * values + 2 * heads,  # q, k, v, output gate, strength, decay
        "kda": 2 * keys + values + heads + 2 * attention.linear_value_dim,
        "mamba2": 2 * values + 2 * keys + heads,
        "mamba1": 2 * values,
        "lightning": 4 * values,
        "conv": 3 * values,
    }[attention.linear_form]


def _indexer(attention: Attention, hidden: int) -> tuple[Matrix, ...]:
    """Return the replicated projections of a sparse-attention indexer, if there is one."""
    if not attention.index_heads:
        return ()
    width = attention.index_dim + attention.index_heads
    return (
        Matrix(
            "index_q",
            attention.index_heads * attention.index_dim,
            attention.q_lora_rank or hidden,
        ),
        Matrix("index_k", width, hidden),
    )


def ffn_matrices(width: int, gated: bool, hidden: int, tp: int) -> tuple[Matrix, ...]:
    """Return the dense feed-forward matrices (or shared experts) on one of `tp` GPUs."""
    own = width / tp
    return (
        Matrix("gate_up" if gated else "up", (2 if gated else 1) * own, hidden),
        Matrix("down", hidden, own),
    )


def expert_tp(parallel: Parallelism) -> float:
    """Return over how many GPUs one expert is split: tp·dp/ep."""
    return parallel.tp * parallel.dp / parallel.ep
