"""Dimensionless efficiencies and launch times of the operator forms: one set for every GPU.

Each number carries its unit, how it was obtained and where from, so that a catalogue page can
list them (`describe`). Calibration replaces them: `replace(DEFAULT, gemm=replace(DEFAULT.gemm,
compute_bf16=0.77))`.

Kinds: "measured" (fitted to operator or served latencies, then rounded), "secondary" (published
by others), "derived" (follows from the algorithm or from another figure), "assumed" (an
engineering judgement nobody measured here).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

FITTED = "fitted to the operator tables of aiconfigurator 0.12.0 over five GPUs, three engines"
ROOFLINE = f"{FITTED}; rounded by hand"
QUANTISED = (
    "fitted to the GEMM tables of aiconfigurator 0.12.0, the pass that quantises activations apart"
)
MOE = f"{FITTED}; one set for 33 GPU and kernel-path tables"
MLA = f"{FITTED}; DeepSeek module and kernel tables"


def _constant(value: float, unit: str, kind: str, source: str) -> Any:
    return field(default=value, metadata={"unit": unit, "kind": kind, "source": source})


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmConstants:
    """t0 + ‖2k(mn + A·S)/(e_c·P), bytes/(e_m·W)‖_p; before it B·mk/W of 8- and 4-bit formats."""

    compute_bf16: float = _constant(0.80, "1", "measured", ROOFLINE)
    compute_fp8: float = _constant(0.70, "1", "measured", f"{QUANTISED}; 0.58 to 0.75")
    compute_int8: float = _constant(0.70, "1", "measured", f"{QUANTISED}; A100")
    compute_fp4: float = _constant(0.48, "1", "measured", f"{QUANTISED}; 0.34 to 0.48")
    compute_weight_only: float = _constant(
        0.60, "1", "assumed", "of the bf16 peak: bf16 kernel that also unpacks its weights"
    )
    quantise_fp8: float = _constant(
        8.0,
        "B",
        "measured",
        f"{QUANTISED}, per activation: 7 to 9 in TensorRT-LLM, 10 to 20 in vLLM, 3.5 to 8 by "
        "block; its launch is not counted: served graphs fuse it with the kernel ahead",
    )
    quantise_int8: float = _constant(2.0, "B", "measured", f"{QUANTISED}, per activation; A100")
    quantise_fp4: float = _constant(5.0, "B", "measured", f"{QUANTISED}, per activation; 3 to 6")
    memory: float = _constant(0.84, "1", "measured", ROOFLINE)
    memory_fp4: float = _constant(0.70, "1", "measured", ROOFLINE)
    launch: float = _constant(3.3e-6, "s", "measured", ROOFLINE)
    area_per_sm: float = _constant(1400.0, "elements", "measured", ROOFLINE)
    exponent: float = _constant(3.0, "1", "measured", ROOFLINE)
    blackwell_compute: float = _constant(
        0.87, "1", "measured", "fitted on B200 with the bf16 constants of H100"
    )
    cdna_compute: float = _constant(
        0.60,
        "1",
        "assumed",
        "share of the peak that MI300X GEMMs reach against H100's, recalled and not looked up; "
        "with the RCCL latency it took TPOT of public MI300X rows from 52 to 13 % median error",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillAttentionConstants:
    """t0 + (d_qk + d_v)·[h·Σ(2·pairs + s0·q) + A·S·q_max] / (e_c·(d/128)^g·P_bf16)."""

    compute: float = _constant(0.65, "1", "measured", ROOFLINE)
    head_dim_exponent: float = _constant(0.5, "1", "measured", ROOFLINE)
    launch: float = _constant(12.5e-6, "s", "measured", ROOFLINE)
    query_offset: float = _constant(1100.0, "tokens", "measured", ROOFLINE)
    rows_per_sm: float = _constant(92.0, "tokens", "measured", ROOFLINE)
    blackwell_compute: float = _constant(
        0.80, "1", "measured", "fitted on B200 with the constants of H100"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeAttentionConstants:
    """t0 + KV and query bytes/(e_m·W)."""

    memory: float = _constant(0.85, "1", "measured", ROOFLINE)
    memory_fp8: float = _constant(0.78, "1", "measured", ROOFLINE)
    launch: float = _constant(12e-6, "s", "measured", ROOFLINE)
    volta_memory: float = _constant(
        0.33,
        "1",
        "measured",
        "TPOT of 28,650 against 240 tokens of context, Llama-3.1-8B alone on V100S under vLLM "
        "0.7.3 (AccelMark): 28 % of the bandwidth; engines' paged kernel in FlashAttention's stead",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseConstants:
    """Norms, residuals, activation, rotary embedding: launches + bytes/(e_m·W)."""

    launches: float = _constant(3.0, "1/layer", "measured", ROOFLINE)
    launch: float = _constant(3.0e-6, "s", "measured", ROOFLINE)
    memory: float = _constant(0.80, "1", "measured", ROOFLINE)
    hidden_passes: float = _constant(
        8.0, "1", "derived", "two norms with residual: read and write twice each"
    )
    ffn_passes: float = _constant(
        3.0, "1", "derived", "gated activation: read two halves, write one"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaConstants:
    """Latent attention kernels; their projections are ordinary GEMMs."""

    prefill_compute: float = _constant(0.72, "1", "measured", MLA)
    prefill_launch: float = _constant(16e-6, "s", "measured", MLA)
    query_offset: float = _constant(1300.0, "tokens", "measured", MLA)
    rows_per_sm: float = _constant(180.0, "tokens", "measured", MLA)
    decode_compute: float = _constant(0.65, "1", "measured", f"{MLA}; middle of .5 to .8")
    decode_memory: float = _constant(0.82, "1", "measured", MLA)
    decode_memory_fp8: float = _constant(0.68, "1", "measured", f"{MLA}; middle of .56 to .79")
    decode_launch: float = _constant(14e-6, "s", "measured", MLA)
    launches: float = _constant(
        3.0,
        "1/layer",
        "measured",
        "latent norms, rotary embedding, KV write: modules start in 35 µs",
    )
    key_passes: float = _constant(
        2.0, "1", "derived", "up-projected keys joined with their rotary part: written, read back"
    )
    blackwell_compute: float = _constant(0.95, "1", "measured", MLA)
    blackwell_rows: float = _constant(1.9, "1", "measured", MLA)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeConstants:
    """Grouped expert GEMM with an additive activation pass; see `bestserve.models.step.moe`."""

    compute_bf16: float = _constant(0.43, "1", "measured", MOE)
    compute_fp8: float = _constant(0.29, "1", "measured", MOE)
    compute_weight_only: float = _constant(0.40, "1", "measured", f"{MOE}; of the bf16 peak")
    compute_fp4: float = _constant(
        0.45, "1", "assumed", "prior: the fp4 tables are never compute-bound in the joint fit"
    )
    memory: float = _constant(0.86, "1", "measured", MOE)
    launch: float = _constant(30e-6, "s", "measured", MOE)
    rate_local: float = _constant(16e9, "B/s/SM", "measured", f"{MOE}; rows of this rank only")
    rate_global: float = _constant(39e9, "B/s/SM", "measured", f"{MOE}; all routed rows")
    tile: float = _constant(64.0, "tokens", "measured", MOE)
    exponent: float = _constant(3.0, "1", "measured", MOE)
    blackwell_compute: float = _constant(0.76, "1", "measured", MOE)
    compute_listed: float = _constant(
        1.0, "1", "derived", "of the compute share of a kernel that the engine lists; calibrated"
    )
    memory_listed: float = _constant(
        1.0, "1", "derived", "of the memory share of a kernel that the engine lists; calibrated"
    )
    rate_listed: float = _constant(
        1.0, "1", "derived", "of the activation rate of a kernel that the engine lists; calibrated"
    )
    apart: float = _constant(
        1.0, "1", "derived", "rows that choose experts independently; fewer of tokens in a row"
    )
    imbalance_2: float = _constant(1.1, "1", "measured", "power-law routing, 2 expert ranks")
    imbalance_4: float = _constant(1.2, "1", "measured", "power-law routing, 4 expert ranks")
    imbalance_8: float = _constant(1.4, "1", "measured", "power-law routing, 8 expert ranks")
    imbalance_step: float = _constant(
        0.2, "1", "assumed", "further growth per doubling beyond 8 ranks"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveConstants:
    """α-β forms; efficiencies are of the one-way link bandwidth per GPU."""

    allreduce_latency: float = _constant(4e-6, "s", "measured", f"{ROOFLINE}; CUDA-graph kernels")
    rccl_latency: float = _constant(
        80e-6,
        "s",
        "measured",
        "TPOT at low load of tp 4 and 8 on MI300X: 70 to 120 µs, in SGLang 0.5, TGI and vLLM 0.6",
    )
    allreduce_growth: float = _constant(0.06, "1", "measured", f"{ROOFLINE}; per GPU beyond two")
    allreduce_link: float = _constant(0.64, "1", "measured", ROOFLINE)
    alltoall_latency: float = _constant(
        40e-6,
        "s",
        "measured",
        f"{FITTED}; middle of 11 (low latency) to 260 µs, factor 3 either way",
    )
    alltoall_link: float = _constant(0.50, "1", "measured", f"{FITTED}; expert all-to-all kernels")
    blackwell_alltoall: float = _constant(
        0.5, "1", "measured", f"{FITTED}; the kernels keep their B/s while the link doubles"
    )
    network_link: float = _constant(0.80, "1", "assumed", "NCCL bus efficiency across nodes")
    point_to_point_link: float = _constant(0.80, "1", "assumed", "NCCL send/receive efficiency")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttentionConstants:
    """Gated delta rule (Qwen3.5-like). Derived from the algorithm, not measured."""

    chunk: float = _constant(64.0, "tokens", "derived", "chunk length of the public kernels")
    compute: float = _constant(0.30, "1", "assumed", "of the bf16 peak: small dependent matrices")
    memory: float = _constant(0.80, "1", "assumed", "as elementwise kernels")
    launch: float = _constant(12e-6, "s", "assumed", "as one attention module")
    state_bytes: float = _constant(4.0, "B", "derived", "recurrent state kept in fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchConstants:
    """Host work per layer when kernels are launched one by one (no CUDA graphs)."""

    attention_launches: float = _constant(
        3.0, "1/layer", "derived", "norm, rotary embedding, KV write, beside the attention kernel"
    )
    ffn_launches: float = _constant(3.0, "1/layer", "derived", "norm, residual, activation")
    moe_launches: float = _constant(
        9.0,
        "1/layer",
        "derived",
        "router, top-k, sort, gather, 2 grouped GEMMs, activation, scatter",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConstants:
    """All universal constants of the operator forms."""

    gemm: GemmConstants = GemmConstants()
    prefill: PrefillAttentionConstants = PrefillAttentionConstants()
    decode: DecodeAttentionConstants = DecodeAttentionConstants()
    elementwise: ElementwiseConstants = ElementwiseConstants()
    mla: MlaConstants = MlaConstants()
    moe: MoeConstants = MoeConstants()
    collective: CollectiveConstants = CollectiveConstants()
    linear: LinearAttentionConstants = LinearAttentionConstants()
    dispatch: DispatchConstants = DispatchConstants()


DEFAULT = OperatorConstants()


class ConstantRecord(NamedTuple):
    """One line of the list of constants: "gemm.launch", 3.3e-6, "s", "measured", where from."""

    name: str
    value: float
    unit: str
    kind: str
    source: str


def describe(constants: OperatorConstants = DEFAULT) -> tuple[ConstantRecord, ...]:
    """Return every constant with its unit, kind and source; replaced values are "calibrated".

    >>> describe()[0]
    ConstantRecord(name='gemm.compute_bf16', value=0.8, unit='1', kind='measured', source='...')
    """
    records = []
    for group in fields(constants):
        values = getattr(constants, group.name)
        assert is_dataclass(values)
        for item in fields(values):
            value = getattr(values, item.name)
            meta = item.metadata
            own = value == item.default
            records.append(
                ConstantRecord(
                    f"{group.name}.{item.name}",
                    value,
                    meta["unit"],
                    meta["kind"] if own else "calibrated",
                    meta["source"] if own else "replaced by the caller",
                )
            )
    return tuple(records)
