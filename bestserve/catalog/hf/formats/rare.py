"""Methods that few checkpoints use, and formats that an engine is told rather than the checkpoint.

Sources: the quantisers of Transformers and the `quantization` folders of vLLM and SGLang under the
same names; AQLM: Egiazarian et al. 2024, arXiv:2401.06118.
"""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.rules import Rule
from bestserve.catalog.hf.formats.scheme import SKIPPED, Scheme, bits_of, group_of, kept, loose
from bestserve.models.step.device import WeightFormat


def eetq(part: Config) -> Scheme:
    """8-bit integers, one scale per output, 16-bit activations."""
    return _all(part, weights.integer(8))


def experts_int8(part: Config) -> Scheme:
    """vLLM: 8-bit integers for the experts alone."""
    rules = kept(part, SKIPPED, loose)
    return Scheme(rules=(*rules, (Rule("name", "experts"), weights.integer(8))))


def eight_bits(part: Config) -> Scheme:
    """8-bit integers multiplied with 8-bit activations, one scale per output."""
    return _all(part, weights.integer8())


def channel_float8(part: Config) -> Scheme:
    """FP8 with one scale per output."""
    return _all(part, weights.float8())


def blocks_of_eight_bits(part: Config) -> Scheme:
    """SGLang: 8-bit integers, a 32-bit scale per block."""
    return _all(part, WeightFormat("int8", 1.0 + 4.0 / 128**2))


def four_bits_float8(part: Config) -> Scheme:
    """SGLang's w4afp8: experts in 4-bit integers by groups, the rest FP8 in blocks."""
    group = group_of(part, "group_size")
    rules = kept(part, SKIPPED, loose)
    experts = (Rule("name", "experts"), weights.integer(4, group))
    return Scheme(default=weights.float8(block=(128, 128)), rules=(*rules, experts))


def four_bit_integers(part: Config) -> Scheme:
    """QQQ, Marlin and BitBLAS: 4-bit integers by groups."""
    bits = bits_of(part, "bits", "wbits", "w_bit", allowed=(2, 3, 4, 8), default=4)
    return _all(part, weights.integer(bits, group_of(part, "group_size")))


def quanto(part: Config) -> Scheme:
    """Optimum's quanto: its weights' own word."""
    word = part.text("weights", "int8")
    known = {
        "float8": weights.float8(weight_only=True),
        "int8": weights.integer(8),
        "int4": weights.integer(4, 128),
        "int2": weights.integer(2, 128),
    }
    if word not in known:
        raise part.error("weights", f"is {word[:20]!r}; known are {', '.join(known)}")
    return _all(part, known[word])


def bitnet(part: Config) -> Scheme:
    """Ternary weights, four in a byte."""
    return _all(part, WeightFormat("int4", 0.25))


def float4_rotated(part: Config) -> Scheme:
    """FP-Quant and NVFP4: 4-bit floats by groups of 32 or 16."""
    word = part.text("forward_dtype", part.text("quant_method"))
    return _all(part, weights.float4(16 if "nv" in word.lower() else 32))


def higgs(part: Config) -> Scheme:
    """Vectors of `p` weights as one of 2^(bits·p) points, a 16-bit scale per group."""
    bits = bits_of(part, "bits", allowed=(2, 3, 4), default=4)
    return _all(part, weights.integer(bits, group_of(part, "group_size", default=256)))


def spqr(part: Config) -> Scheme:
    """3-bit weights with two levels of scales; outliers are left out."""
    bits = bits_of(part, "bits", allowed=(2, 3, 4), default=3)
    inner = part.integer("beta1", default=16, maximum=1024)
    # 3-bit scale and zero point per group, 16-bit ones per group of groups.
    scales = (2 * 3 / 8) / inner + 8.0 / (inner * part.integer("beta2", default=16, maximum=1024))
    return Scheme(
        default=WeightFormat("int4", bits / 8 + scales),
        rules=tuple(kept(part, SKIPPED, loose)),
        notes=(f"{part.prefix}quant_method spqr: outliers are not counted",),
    )


def aqlm(part: Config) -> Scheme:
    """Sums of codebook vectors: so many codes for each group of weights, and the codebooks."""
    books = part.integer("num_codebooks", default=1, maximum=16)
    bits = part.integer("nbits_per_codebook", default=16, maximum=16)
    inputs = part.integer("in_group_size", default=8, maximum=1024)
    outputs = part.integer("out_group_size", default=1, maximum=1024)
    codes = books * bits / 8.0 / (inputs * outputs)
    rules = kept(part, ("linear_weights_not_to_quantize", *SKIPPED), loose)
    return Scheme(
        default=WeightFormat("int4", codes),
        rules=tuple(rules),
        beside=2.0 * books * 2**bits * inputs * outputs,
    )


def _all(part: Config, form: WeightFormat) -> Scheme:
    return Scheme(default=form, rules=tuple(kept(part, SKIPPED, loose)))
