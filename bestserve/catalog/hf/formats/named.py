"""The quantisation methods by the names that checkpoints give them."""

from __future__ import annotations

from collections.abc import Callable

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import methods, rare, torchao, vendors
from bestserve.catalog.hf.formats.scheme import Scheme
from bestserve.errors import DataError

METHODS: dict[str, Callable[[Config], Scheme]] = {
    "fp8": methods.fp8,
    "fbgemm_fp8": methods.fp8,
    "finegrained_fp8": methods.fp8,
    "deepseek_v4_fp8": methods.fp8,
    "mxfp4": methods.mxfp4,
    "gpt_oss_mxfp4": methods.mxfp4,
    "mxfp8": methods.mxfp8,
    "gptq": methods.gptq,
    "gptq_marlin": methods.gptq,
    "gptqmodel": methods.gptq,
    "awq": methods.awq,
    "awq_marlin": methods.awq,
    "auto-round": methods.auto_round,
    "auto_round": methods.auto_round,
    "intel/auto-round": methods.auto_round,
    "inc": methods.auto_round,
    "bitsandbytes": methods.bitsandbytes,
    "hqq": methods.hqq,
    "compressed-tensors": methods.compressed_tensors,
    "modelopt": vendors.modelopt,
    "modelopt_fp4": vendors.modelopt,
    "modelopt_mxfp8": vendors.modelopt,
    "modelopt_mixed": vendors.modelopt,
    "quark": vendors.quark,
    "mlx": vendors.mlx,
    "torchao": torchao.torchao,
    "eetq": rare.eetq,
    "experts_int8": rare.experts_int8,
    "aqlm": rare.aqlm,
    "spqr": rare.spqr,
    "higgs": rare.higgs,
    "quanto": rare.quanto,
    "bitnet": rare.bitnet,
    "fp_quant": rare.float4_rotated,
    "nvfp4": rare.float4_rotated,
    "qqq": rare.four_bit_integers,
    "marlin": rare.four_bit_integers,
    "bitblas": rare.four_bit_integers,
    "gptq_bitblas": methods.gptq,
    "moe_wna16": methods.gptq,
    "petit_nvfp4": vendors.modelopt,
    "ptpc_fp8": rare.channel_float8,
    "w8a8_fp8": rare.channel_float8,
    "w8a8_int8": rare.eight_bits,
    "tpu_int8": rare.eetq,
    "blockwise_int8": rare.blocks_of_eight_bits,
    "w4afp8": rare.four_bits_float8,
}


def read_scheme(part: Config, method: str) -> Scheme:
    """Return the scheme of a section; DataError for a method or format that is not known."""
    reader = METHODS.get(method)
    if reader is None:
        known = ", ".join(sorted(METHODS))
        raise DataError(
            f"{part.where}: key {part.prefix}quant_method names {method[:40]!r}, which is not "
            f"known; known are {known}"
        )
    return reader(part)
