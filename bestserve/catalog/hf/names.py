"""How files name what they describe: nested sections, their types, and other names of keys.

Source: the configuration classes of Transformers 5.24 under the same names.
"""

from __future__ import annotations

NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "language_model_config")
"""Keys of the language model's section, in the order in which they are looked for."""

TEXT_TYPES = {
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "vipllava": "llama",
    "video_llava": "llama",
    "bakllava": "mistral",
    "internvl": "qwen2",
    "internvl_chat": "qwen2",
    "mistral3": "mistral",
    "pixtral": "mistral",
    "voxtral": "llama",
    "idefics3": "llama",
    "smolvlm": "llama",
    "paligemma": "gemma",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4_unified": "gemma4_unified_text",
    "mllama": "mllama_text_model",
    "ernie4_5_vl_moe": "ernie4_5_vl_moe_text",
    "paddleocr_vl": "paddleocr_vl_text",
    "hunyuan_vl": "hunyuan_vl_text",
    "glm_ocr": "glm_ocr_text",
    "molmo2": "molmo2_text",
    "cohere2_vision": "cohere2",
    "mistral_large4": "mistral_large4_text",
    "gemma4": "gemma4_text",
    "qwen2_audio": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen2_5_omni": "qwen2_5_omni_text",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe": "qwen3_omni_moe_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "llama4": "llama4_text",
    "kimi_vl": "deepseek_v3",
    "deepseek_vl_v2": "deepseek_v2",
    "aya_vision": "cohere2",
}
"""Type of the nested section where it names none, by the type of the whole."""

_GPT2 = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
RENAMED: dict[str, dict[str, str]] = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "bloom": {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_embed": "hidden_size",
    },
    "falcon": {
        "num_kv_heads": "num_key_value_heads",
        "ffn_hidden_size": "intermediate_size",
        "n_head": "num_attention_heads",
        "n_layer": "num_hidden_layers",
        "n_head_kv": "num_key_value_heads",
    },
    "chatglm": {
        "num_layers": "num_hidden_layers",
        "padded_vocab_size": "vocab_size",
        "ffn_hidden_size": "intermediate_size",
        "multi_query_group_num": "num_key_value_heads",
        "kv_channels": "head_dim",
        "seq_length": "max_position_embeddings",
    },
    "mpt": {
        "d_model": "hidden_size",
        "n_heads": "num_attention_heads",
        "n_layers": "num_hidden_layers",
        "max_seq_len": "max_position_embeddings",
    },
    "gptj": _GPT2,
    "dbrx": {
        "d_model": "hidden_size",
        "n_heads": "num_attention_heads",
        "n_layers": "num_hidden_layers",
        "max_seq_len": "max_position_embeddings",
    },
    "exaone": {"num_layers": "num_hidden_layers"},
    "longcat_flash": {"num_layers": "num_hidden_layers"},
    "kimi_linear": {"model_max_length": "max_position_embeddings"},
    "bailing_hybrid": {"model_max_length": "max_position_embeddings"},
    "internlm": {},
}
"""Old or own names of keys -> the usual ones, by type."""
