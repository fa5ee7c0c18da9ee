"""Attention kernels: prefill, decode, latent (MLA) and linear; projections are `roofline.gemm`."""

from __future__ import annotations

import numpy as np

from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device
from bestserve.models.step.roofline import Cost, Number, present


def prefill_attention(
    pairs: Number,
    tokens: Number,
    longest: Number,
    heads: float,
    head_dim: float,
    v_head_dim: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return causal attention of prompt chunks on one GPU with `heads` query heads.

    t = t0 + (d_qk + d_v)·[h·(2·pairs + s0·tokens) + A·S·longest] / (e_c·√(d/128)·P_bf16);
    for one prompt of q tokens this is 2·d·q·[h(q + s0) + A·S] / (e_c·√(d/128)·P): s0 stands for
    the half-empty tiles of the causal triangle, A·S for the last wave over S multiprocessors.
    """
    c = constants.prefill
    e_c = c.compute * (head_dim / 128.0) ** c.head_dim_exponent
    if device.generation == "blackwell":
        e_c *= c.blackwell_compute
    e_c *= device.compute_reach
    work = heads * (2.0 * np.asarray(pairs) + c.query_offset * np.asarray(tokens))
    work = work + c.rows_per_sm * device.sms * np.asarray(longest)
    width = head_dim + v_head_dim
    return Cost(
        fixed=c.launch * present(tokens),
        compute=width * work / (e_c * device.flops_bf16),
        flops=2.0 * width * heads * np.asarray(pairs),
    )


def decode_attention(
    context: Number,
    sequences: Number,
    heads: float,
    kv_heads: float,
    head_dim: float,
    v_head_dim: float,
    kv_bytes: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return one-token attention over `context` tokens in total, of `sequences` sequences.

    t = t0 + [w·context·h_kv·(d_k + d_v) + 2·sequences·h·(d_k + d_v)] / (e_m·W).
    """
    c = constants.decode
    e_m = c.memory_fp8 if kv_bytes < 2.0 else c.memory
    if device.generation == "volta":
        e_m *= c.volta_memory
    width = head_dim + v_head_dim
    reads = np.asarray(context) * kv_heads * width * kv_bytes
    traffic = reads + 2.0 * np.asarray(sequences) * heads * width
    return Cost(
        fixed=c.launch * present(sequences),
        memory=traffic / (e_m * device.memory_bandwidth),
        flops=2.0 * np.asarray(context) * heads * width,
        traffic=traffic,
    )


def mla_prefill(
    pairs: Number,
    tokens: Number,
    longest: Number,
    heads: float,
    qk_dim: float,
    v_dim: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return latent attention of prompt chunks with up-projected keys and values.

    As `prefill_attention`, with its own constants: (qk + v)·[h(2·pairs + s0·tokens) + A·S·longest].
    """
    c = constants.mla
    blackwell = device.generation == "blackwell"
    e_c = c.prefill_compute * (c.blackwell_compute if blackwell else 1.0)
    rows = c.rows_per_sm * (c.blackwell_rows if blackwell else 1.0) * device.sms
    work = heads * (2.0 * np.asarray(pairs) + c.query_offset * np.asarray(tokens))
    work = work + rows * np.asarray(longest)
    width = qk_dim + v_dim
    return Cost(
        fixed=c.prefill_launch * present(tokens),
        compute=width * work / (e_c * device.flops_bf16),
        flops=2.0 * width * heads * np.asarray(pairs),
    )


def mla_decode(
    context: Number,
    sequences: Number,
    heads: float,
    latent: float,
    rope: float,
    kv_bytes: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return absorbed latent attention: every head reads the same latent of `latent + rope`.

    t = t0 + ‖2h(2·latent + rope)·K/(e_c·P), [w(latent + rope)·K + 2(2·latent + rope)·b·h]/(e_m·W)‖.
    The bytes do not depend on tp: each tensor-parallel rank keeps the whole latent.
    """
    c = constants.mla
    e_m = c.decode_memory_fp8 if kv_bytes < 2.0 else c.decode_memory
    e_c = c.decode_compute * (c.blackwell_compute if device.generation == "blackwell" else 1.0)
    width = 2.0 * latent + rope
    flops = 2.0 * heads * width * np.asarray(context)
    traffic = (
        kv_bytes * (latent + rope) * np.asarray(context)
        + 2.0 * width * np.asarray(sequences) * heads
    )
    return Cost(
        fixed=c.decode_launch * present(sequences),
        compute=flops / (e_c * device.flops_bf16),
        memory=traffic / (e_m * device.memory_bandwidth),
        flops=flops,
        traffic=traffic,
        exponent=constants.gemm.exponent,
    )


def linear_attention(
    prompt_tokens: Number,
    sequences: Number,
    value_heads: float,
    key_dim: float,
    value_dim: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return the recurrent part of a gated delta-rule layer. Derived, not measured.

    Every sequence reads and writes its state, value_heads·key_dim·value_dim numbers. Prompts run
    chunk-parallel: per chunk of C tokens and head C²(3·d_k + 2·d_v) + 3·C·d_k·d_v + C³/3
    multiply-adds (products inside the chunk, the triangular inverse, the state update).
    """
    c = constants.linear
    chunk = c.chunk
    per_token = 2.0 * (
        chunk * (3.0 * key_dim + 2.0 * value_dim) + 3.0 * key_dim * value_dim + chunk**2 / 3.0
    )
    flops = np.asarray(prompt_tokens) * value_heads * per_token
    state = value_heads * key_dim * value_dim * c.state_bytes
    traffic = 2.0 * np.asarray(sequences) * state
    return Cost(
        fixed=c.launch * present(sequences),
        compute=flops / (c.compute * device.flops_bf16),
        memory=traffic / (c.memory * device.memory_bandwidth),
        flops=flops,
        traffic=traffic,
        exponent=constants.gemm.exponent,
    )


def sparse_indexer(
    pairs: Number,
    context: Number,
    index_heads: float,
    index_dim: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return the scoring of all keys by a sparse-attention indexer (DeepSeek V3.2).

    2·heads·dim multiply-adds per (query, key) pair in fp8 where the device has it, and one byte
    per key element read in decode. Derived from the published algorithm, not measured; replicated
    over tensor-parallel ranks.
    """
    rate = constants.gemm.compute_fp8 * device.flops_fp8
    if device.flops_fp8 <= 0:
        rate = constants.gemm.compute_bf16 * device.flops_bf16
    everything = np.asarray(pairs) + np.asarray(context)
    flops = 2.0 * index_heads * index_dim * everything
    traffic = index_dim * np.asarray(context)
    return Cost(
        fixed=constants.gemm.launch * present(everything),
        compute=flops / rate,
        memory=traffic / (constants.decode.memory_fp8 * device.memory_bandwidth),
        flops=flops,
        traffic=traffic,
        exponent=constants.gemm.exponent,
    )
