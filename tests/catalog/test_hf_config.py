"""Reading config.json: every family refuses what it cannot read, naming file and key."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bestserve.catalog import list_models, model_from_config
from bestserve.catalog.folders import package_folder
from bestserve.catalog.hf import families
from bestserve.errors import BestserveError, DataError
from bestserve.specs.model import Model


def bundled(name: str) -> dict[str, Any]:
    path = package_folder("models") / name.replace("/", "--", 1) / "config.json"
    values: dict[str, Any] = json.loads(path.read_text())
    del values["_bestserve"]
    return values


def one_of_each_family() -> dict[str, dict[str, Any]]:
    found = {}
    for name in list_models():
        values = bundled(name)
        found.setdefault(values["model_type"], values)
    return found


FAMILIES = one_of_each_family()


def read(values: dict[str, Any]) -> Model:
    return model_from_config(values, name="mine", where="model config mine.json")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_key_is_named_or_has_the_familys_default(family: str) -> None:
    needed = set()
    for key in FAMILIES[family]:
        rest = {k: v for k, v in FAMILIES[family].items() if k != key}
        try:
            read(rest)
        except DataError as refused:
            message = str(refused)
            assert message.startswith("model config mine.json: key ")
            assert "\n" not in message
            # Some keys take over from a missing one, so the message may name its stand-in.
            needed.add(key)
    assert needed >= {"model_type", "hidden_size"}
    # Nemotron-H's pattern says how many layers there are.
    assert "num_hidden_layers" in needed or family == "nemotron_h"
    if family != "gemma3_text":  # its published files leave these to Transformers' defaults
        assert needed >= {"num_attention_heads", "vocab_size"}


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_missing_key_is_named(key: str) -> None:
    rest = {k: v for k, v in FAMILIES["llama"].items() if k != key}
    with pytest.raises(DataError, match=rf"mine.json: key '{key}' is missing"):
        read(rest)


HOSTILE: list[Any] = [
    *(0, -1, 1.5, "x", "", [], {}, [[]], [None], {"a": {}}, True, False),
    *(math.nan, math.inf, -math.inf, 1e308, 10**30, -(10**30), "9" * 5000),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_values_are_refused_or_harmless(family: str) -> None:
    """Whatever stands under a key: a model, or one line that names file and key."""
    for key in FAMILIES[family]:
        for value in HOSTILE:
            try:
                model = read({**FAMILIES[family], key: value})
            except BestserveError as refused:
                message = str(refused)
                assert "mine.json" in message
                assert "\n" not in message
                assert len(message) < 400
            else:
                assert 0 < model.parameters().active < 1e22


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf, "many", True, [1], 10**12])
def test_unusable_numbers_name_the_key(value: object) -> None:
    with pytest.raises(DataError, match=r"key 'num_hidden_layers' is .*, expected"):
        read({**FAMILIES["llama"], "num_hidden_layers": value})


def test_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"architecture 'qwen9'.*will not guess; nearest: qwen"):
        read({**FAMILIES["llama"], "model_type": "qwen9"})


def test_no_model_type() -> None:
    with pytest.raises(DataError, match=r"key 'model_type' is missing"):
        read({"architectures": ["LlamaForCausalLM"]})


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "llama",
            {"num_key_value_heads": 11},
            "'num_key_value_heads' is 11, which does not divide",
        ),
        (
            "llama",
            {"num_attention_heads": 33, "num_key_value_heads": 33},
            "33, which does not divide",
        ),
        ("mixtral", {"num_experts_per_tok": 9}, "'num_experts_per_tok' is 9, expected 1 to 8"),
        ("gpt_oss", {"layer_types": ["full_attention"]}, "has 1 entries for 36 hidden layers"),
        ("gpt_oss", {"layer_types": ["odd"] * 36}, "contains 'odd', known are sliding_attention"),
        ("gemma4_text", {"layer_types": None}, "'layer_types' is missing"),
        ("gemma4_text", {"num_kv_shared_layers": 5000}, "expected 0 to"),
        ("opt", {"word_embed_proj_dim": 512}, "not supported"),
        ("opt", {"do_layer_norm_before": False}, "not supported"),
        ("step3p5", {"moe_layers_enum": "3,4,five"}, "no comma-separated list"),
        ("step3p5", {"layer_types": ["full_attention"]}, "1 entries"),
        ("glm_moe_dsa", {"indexer_types": ["full"]}, "'indexer_types' has 1 entries"),
        ("minimax_m2", {"shared_intermediate_size": 8}, "no published M2 model"),
        ("qwen3", {"use_sliding_window": True}, "no published Qwen3 model"),
        ("qwen3_moe", {"mlp_only_layers": 3}, "no list of layer numbers"),
    ],
)
def test_contradictions_are_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read({**FAMILIES[family], **changes})


def test_options_of_the_readers() -> None:
    qwen = FAMILIES["qwen2"]
    windows = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 20}
    full, sliding = read({**qwen, **windows}).architecture.groups
    assert full.count == 20
    assert sliding.attention.window == 64
    sparse = read({**FAMILIES["qwen3_moe"], "mlp_only_layers": [0, 1]}).architecture.groups
    assert (sparse[0].count, sparse[0].ffn.kind) == (2, "dense")
    biased = read({**FAMILIES["llama"], "attention_bias": True, "mlp_bias": True})
    assert biased.architecture.groups[0].attention.o_bias
    assert biased.architecture.groups[0].ffn.bias


def test_qwen2_moe_against_its_published_count() -> None:
    """Qwen1.5-MoE-A2.7B: 14.3 billion parameters, 2.7 billion active (model card)."""
    model = read(
        {
            "model_type": "qwen2_moe",
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "vocab_size": 151936,
        }
    )
    assert model.parameters().total == pytest.approx(14.3e9, rel=0.01)
    assert model.parameters().active == pytest.approx(2.4e9, rel=0.02)  # 2.7 with the embedding


def test_text_part_of_a_multimodal_config() -> None:
    inner = {**FAMILIES["llama"]}
    outer = {"model_type": "llava", "text_config": inner, "tie_word_embeddings": True}
    model = read(outer)
    assert model.architecture.tie_word_embeddings
    assert any("text part only" in note for note in model.notes)
    del inner["hidden_size"], inner["num_attention_heads"]
    filled = read(outer).architecture  # nested sections leave out the library's defaults
    assert filled.hidden_size == 4096
    assert filled.groups[0].attention.num_heads == 32
    outer["text_config"] = {**FAMILIES["step3p5"], "hidden_size": None}
    with pytest.raises(DataError, match=r"key 'text_config.hidden_size' is missing"):
        read(outer)


def test_the_decoder_may_lie_deep() -> None:
    inner = {k: v for k, v in FAMILIES["llama"].items() if k != "model_type"}
    outer: dict[str, Any] = {"model_type": "llava", "text_config": inner}
    assert read(outer).architecture == read(FAMILIES["llama"]).architecture
    for key in ("llm_config", "language_config", "thinker_config"):
        deep = {"model_type": "any", key: {"model_type": "llava", "text_config": inner}}
        assert read(deep).architecture == read(FAMILIES["llama"]).architecture


def test_families_are_found_by_being_there() -> None:
    assert {"llama", "deepseek_v3", "gpt_oss", "qwen3_next"} <= set(families())
