"""Dense decoders that differ from Llama in small things: one line each.

Sources: the configuration and model classes of Transformers under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query, windows
from bestserve.models.step.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Traits:
    """How a family departs from Llama.

    tied : embedding and head share weights unless the file says otherwise
    gated : three matrices in the feed-forward part, not two
    qkv_bias, o_bias, mlp_bias : default of biases; `bias_keys`, `mlp_bias_keys` override them
    qk_norm : "" none, "dim" one weight per head dimension, "heads" one per head and dimension
    norms : per layer; norm_bias : LayerNorm with bias
    every : one layer in so many attends to all, the others slide; 0: all slide if there is a window
    positions : learned positions
    width : feed-forward width over hidden size where the file states none
    """

    tied: bool = False
    gated: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    bias_keys: tuple[str, ...] = ("attention_bias",)
    o_bias_key: str = "attention_bias"
    mlp_bias_keys: tuple[str, ...] = ("mlp_bias",)
    qk_norm: str = ""
    qk_norm_key: str = ""
    norms: int = 2
    norm_bias: bool = False
    every: int = 0
    positions: bool = False
    width: int = 0


_OLD = Traits(  # GPT-2 and its time: biases everywhere, two matrices, LayerNorm
    tied=True, gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True, width=4
)

FAMILIES: dict[str, Traits] = {
    "llama": Traits(),
    "granite": Traits(),
    "granite_swa": Traits(tied=True),
    "cwm": Traits(every=4),
    "helium": Traits(),
    "ministral": Traits(),
    "aquila": Traits(),
    "iquestcoder": Traits(),
    "hyperclovax": Traits(),
    "granite4_vision_text": Traits(),
    "molmo2_text": Traits(),
    "granite_docling_text": Traits(tied=True),
    "cosmos3_edge_text": Traits(gated=False),
    "paddleocr_vl_text": Traits(tied=True, bias_keys=("use_bias",), o_bias_key="use_bias"),
    "hunyuan_vl_text": Traits(tied=True, qk_norm="dim", qk_norm_key="use_qk_norm"),
    "glm_ocr_text": Traits(norms=4),
    "gptj": Traits(gated=False, mlp_bias=True, norms=1, norm_bias=True, width=4),
    "mpt": Traits(tied=True, gated=False, width=4),
    "solar": Traits(),
    "xverse": Traits(),
    "orion": Traits(norm_bias=True),
    "baichuan": Traits(),
    "exaone": Traits(),
    "internlm": Traits(bias_keys=("bias",), o_bias_key="bias"),
    "internlm2": Traits(bias_keys=("bias",), o_bias_key="bias"),
    "internlm3": Traits(
        bias_keys=("attention_bias", "qkv_bias"),
        o_bias_key="bias",
        mlp_bias_keys=("mlp_bias", "bias"),
    ),
    "smollm3": Traits(tied=True),
    "seed_oss": Traits(qkv_bias=True, o_bias_key="attention_out_bias"),
    "mimo": Traits(qkv_bias=True, o_bias_key=""),
    "minicpm": Traits(tied=True),
    "mistral": Traits(),
    "ministral3": Traits(),
    "phi3": Traits(),
    "phi4mm": Traits(),
    "phi4_multimodal": Traits(),
    "phi3_v": Traits(),
    "ernie4_5": Traits(tied=True, bias_keys=("use_bias",), o_bias_key="use_bias"),
    "hunyuan_v1_dense": Traits(qk_norm="dim", qk_norm_key="use_qk_norm"),
    "gemma": Traits(tied=True),
    "vaultgemma": Traits(tied=True, every=2),
    "glm": Traits(qkv_bias=True, o_bias_key=""),
    "glm4": Traits(qkv_bias=True, o_bias_key="", norms=4),
    "glm4v_text": Traits(qkv_bias=True, o_bias_key="", norms=4),
    "glm46v_text": Traits(qkv_bias=True, o_bias_key="", norms=4),
    "chatglm": Traits(qkv_bias=True, bias_keys=("add_qkv_bias",), o_bias_key="add_bias_linear"),
    "olmo": Traits(norms=0),
    "olmo2": Traits(qk_norm="heads"),
    "olmo3": Traits(qk_norm="heads", every=4),
    "exaone4": Traits(qk_norm="dim", every=4),
    "exaone4_5_text": Traits(qk_norm="dim", every=4),
    "cohere": Traits(tied=True, norms=1, qk_norm="heads", qk_norm_key="use_qk_norm"),
    "cohere2": Traits(tied=True, norms=1, every=4),
    "stablelm": Traits(bias_keys=("use_qkv_bias",), o_bias_key="", norm_bias=True),
    "apertus": Traits(gated=False, qk_norm="dim"),
    "apertus1p5_text": Traits(gated=False, qk_norm="dim"),
    "arcee": Traits(gated=False),
    "nemotron": Traits(gated=False, norm_bias=True),
    "nanochat": Traits(gated=False, norms=0),
    "starcoder2": Traits(
        tied=True,
        gated=False,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        bias_keys=("use_bias",),
        o_bias_key="use_bias",
        mlp_bias_keys=("use_bias",),
        norm_bias=True,
    ),
    "jais2": Traits(gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True),
    "phi": Traits(gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norms=1, norm_bias=True),
    "persimmon": Traits(gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True),
    "gpt_neox": Traits(
        gated=False, qkv_bias=True, o_bias=True, mlp_bias=True, norm_bias=True, width=4
    ),
    "gpt2": Traits(**{**{f: getattr(_OLD, f) for f in Traits.__slots__}, "positions": True}),
    "gpt_bigcode": Traits(**{**{f: getattr(_OLD, f) for f in Traits.__slots__}, "positions": True}),
    "bloom": _OLD,
    "falcon": Traits(
        tied=True,
        gated=False,
        bias_keys=("bias",),
        o_bias_key="bias",
        mlp_bias_keys=("bias",),
        norms=1,
        norm_bias=True,
        width=4,
    ),
}
MODEL_TYPES = tuple(FAMILIES)


def architecture(config: Config) -> Architecture:
    """Read a dense decoder."""
    traits = FAMILIES[config.text("model_type")]
    norm = traits.qk_norm and config.flag(traits.qk_norm_key, traits.qk_norm_key != "use_qk_norm")
    bias = _flag(config, traits.bias_keys, traits.qkv_bias)
    o_bias = _flag(config, (traits.o_bias_key,), traits.o_bias) if traits.o_bias_key else False
    if config.flag("multi_query", False) and not config.flag("new_decoder_architecture", False):
        values = {**config.values, "num_key_value_heads": 1}  # early Falcon and StarCoder
        config = Config(values, config.where, config.prefix)
    layers: list[Layer] = []
    ffn = dense(
        _with_width(config, traits),
        gated=traits.gated,
        bias=_flag(config, traits.mlp_bias_keys, traits.mlp_bias),
    )
    for window in windows(config, every=traits.every):
        attention = grouped_query(
            config,
            kind="sliding" if window else "full",
            window=window,
            bias=bias,
            o_bias=o_bias,
            qk_norm=bool(norm),
            qk_norm_heads=traits.qk_norm == "heads",
        )
        layers.append((attention, ffn))
    extra = 0
    if traits.positions:
        extra = config.integer("max_position_embeddings") * config.integer("hidden_size")
    return assemble(
        config,
        layers,
        tied=traits.tied,
        norms_per_layer=traits.norms,
        norm_bias=traits.norm_bias,
        extra=extra,
    )


def _flag(config: Config, keys: tuple[str, ...], default: bool) -> bool:
    for key in keys:
        if config.has(key):
            return config.flag(key, default)
    return default


def _with_width(config: Config, traits: Traits) -> Config:
    if config.has("intermediate_size") or not traits.width:
        return config
    width = traits.width * config.integer("hidden_size")
    return Config({**config.values, "intermediate_size": width}, config.where, config.prefix)
