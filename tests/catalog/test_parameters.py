"""Parameter counts against counts by hand and against their own parts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup
from bestserve.models.step.parameters import attention_parameters, parameter_counts

DENSE = Ffn(kind="dense", intermediate_size=10)
GQA = Attention(kind="full", num_heads=4, num_kv_heads=2, head_dim=8)


def one_layer(attention: Attention = GQA, ffn: Ffn = DENSE, **kwargs: object) -> Architecture:
    return Architecture(
        hidden_size=16,
        vocab_size=100,
        groups=(LayerGroup(count=1, attention=attention, ffn=ffn),),
        **kwargs,
    )


def test_grouped_query_layer_by_hand() -> None:
    # q 16x32, k and v 16x16 each, o 32x16
    assert attention_parameters(GQA, 16) == 16 * 32 + 2 * 16 * 16 + 32 * 16


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"bias": True}, 32 + 16 + 16),
        ({"o_bias": True}, 16),
        ({"qk_norm": True}, 2 * 8),
        ({"qk_norm": True, "qk_norm_heads": True}, (4 + 2) * 8),
        ({"output_gate": True}, 16 * 32),
        ({"sinks": True}, 4),
        ({"shared_kv": True}, -16 * 16),
    ],
)
def test_each_option_adds_its_own_parameters(change: dict[str, bool], more: int) -> None:
    changed = dataclasses.replace(GQA, **change)
    assert attention_parameters(changed, 16) - attention_parameters(GQA, 16) == more


def test_latent_attention_of_deepseek_v3_by_hand() -> None:
    """DeepSeek-V3 report, arXiv:2412.19437, section 4.2: 128 heads of 128, ranks 1536 and 512."""
    mla = Attention(
        kind="mla",
        num_heads=128,
        num_kv_heads=128,
        head_dim=192,
        v_head_dim=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
    )
    down = 7168 * 1536 + 7168 * (512 + 64)
    up = 1536 * 128 * 192 + 512 * 128 * (128 + 128)
    out = 128 * 128 * 7168
    assert attention_parameters(mla, 7168) == down + up + out + 1536 + 512


def test_latent_attention_without_query_rank() -> None:
    mla = Attention(
        kind="mla",
        num_heads=2,
        num_kv_heads=2,
        head_dim=6,
        v_head_dim=4,
        kv_lora_rank=3,
        qk_nope_head_dim=4,
        qk_rope_head_dim=2,
    )
    expected = 16 * 2 * 6 + 16 * (3 + 2) + 3 + 3 * 2 * (4 + 4) + 2 * 4 * 16
    assert attention_parameters(mla, 16) == expected


def test_indexer_adds_its_projections_and_key_norm() -> None:
    mla = Attention(
        kind="mla",
        num_heads=2,
        num_kv_heads=2,
        head_dim=6,
        v_head_dim=4,
        q_lora_rank=5,
        kv_lora_rank=3,
        qk_nope_head_dim=4,
        qk_rope_head_dim=2,
    )
    indexed = dataclasses.replace(mla, index_heads=7, index_dim=11, index_topk=13)
    more = attention_parameters(indexed, 16) - attention_parameters(mla, 16)
    assert more == 5 * 7 * 11 + 16 * 11 + 16 * 7 + 2 * 11


def test_gated_delta_layer_by_hand() -> None:
    layer = Attention(
        kind="linear",
        num_heads=4,
        num_kv_heads=2,
        head_dim=3,
        linear_key_heads=2,
        linear_value_heads=4,
        linear_key_dim=3,
        linear_value_dim=5,
        linear_conv=4,
    )
    key, value = 2 * 3, 4 * 5
    projections = 16 * (2 * key + 2 * value) + 16 * 2 * 4
    rest = (2 * key + value) * 4 + 4 + 4 + 5 + value * 16
    assert attention_parameters(layer, 16) == projections + rest


def test_dense_model_by_hand() -> None:
    counts = parameter_counts(one_layer())
    assert counts.embedding == counts.lm_head == 1600
    assert counts.dense_ffn == 3 * 16 * 10
    assert counts.norms == 2 * 16 + 16
    assert counts.total == 2 * 1600 + counts.attention + 480 + 48
    assert counts.active == counts.total - counts.embedding


def test_ffn_biases_and_ungated() -> None:
    plain = Ffn(kind="dense", intermediate_size=10, gated=False, bias=True)
    assert parameter_counts(one_layer(ffn=plain)).dense_ffn == 2 * 160 + 10 + 16
    gated = Ffn(kind="dense", intermediate_size=10, bias=True)
    assert parameter_counts(one_layer(ffn=gated)).dense_ffn == 3 * 160 + 20 + 16


def test_tied_embedding_counts_once_but_is_active() -> None:
    tied = parameter_counts(one_layer(tie_word_embeddings=True))
    assert tied.lm_head == 0
    assert tied.total == tied.active


def test_layer_norm_biases_double_the_norms() -> None:
    plain, biased = one_layer(), one_layer(norm_bias=True)
    assert parameter_counts(biased).norms == 2 * parameter_counts(plain).norms


def test_experts_by_hand() -> None:
    moe = Ffn(
        kind="moe",
        intermediate_size=6,
        num_experts=8,
        top_k=2,
        shared_intermediate_size=12,
        shared_gate=True,
        router_bias=True,
    )
    counts = parameter_counts(one_layer(ffn=moe))
    assert counts.experts == 8 * 3 * 16 * 6
    assert counts.shared_experts == 3 * 16 * 12 + 16
    assert counts.router == 8 * 16 + 8
    idle = counts.experts * 6 // 8
    assert counts.active == counts.total - counts.embedding - idle


def test_extra_parameters_are_added() -> None:
    assert parameter_counts(one_layer(extra_parameters=77)).total == (
        parameter_counts(one_layer()).total + 77
    )


SMALL = st.integers(1, 64)


@given(
    hidden=SMALL,
    vocab=SMALL,
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    experts=st.integers(1, 16),
    width=SMALL,
    tied=st.booleans(),
)
def test_groups_add_up_to_the_parts(
    hidden: int, vocab: int, counts: list[int], experts: int, width: int, tied: bool
) -> None:
    ffns = [
        Ffn(kind="moe", intermediate_size=width, num_experts=experts, top_k=1),
        Ffn(kind="dense", intermediate_size=width, bias=True),
        Ffn(kind="dense", intermediate_size=width, gated=False),
    ]
    arch = Architecture(
        hidden_size=hidden,
        vocab_size=vocab,
        groups=tuple(
            LayerGroup(count=n, attention=GQA, ffn=f) for n, f in zip(counts, ffns, strict=False)
        ),
        tie_word_embeddings=tied,
    )
    found = parameter_counts(arch)
    layers = sum(g.count * g.layer for g in found.groups)
    assert found.total == found.embedding + found.lm_head + layers + hidden
    assert 0 < found.active <= found.total
    doubled = dataclasses.replace(
        arch, groups=tuple(dataclasses.replace(g, count=2 * g.count) for g in arch.groups)
    )
    assert parameter_counts(doubled).total - found.total == layers
