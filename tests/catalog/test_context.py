"""The longest context follows the config's own rope scaling; windows follow layer_types."""

from __future__ import annotations

from typing import Any

import pytest

import bestserve as bs
from bestserve.catalog import model_from_config
from bestserve.errors import DataError
from bestserve.lowering import lower
from bestserve.models.step.device import Parallelism
from bestserve.specs.model import Model

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 32_000,
    "max_position_embeddings": 8192,
}


def read(**changes: Any) -> Model:
    return model_from_config({**LLAMA, **changes}, name="mine", where="mine.json")


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 8192),
        ({"rope_type": "linear", "factor": 2.0}, 16384),
        ({"type": "dynamic", "factor": 4}, 32768),
        ({"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8192}, 131072),
        # YaRN files state the positions before or after: those of the training count.
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"rope_type": "yarn", "factor": 3.0}, 24576),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}, 8192),
        ({"rope_type": "longrope", "original_max_position_embeddings": 1024}, 8192),
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, 8192),
        ({"rope_type": "default", "rope_theta": 1e6}, 8192),
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rope_scaling(scaling: dict[str, Any] | None, context: int, key: str) -> None:
    model = read(**{key: scaling})
    assert model.max_position_embeddings == context
    assert not any("understood" in note for note in model.notes)
    if scaling and key == "rope_parameters":
        apart = {"full_attention": scaling, "sliding_attention": {"rope_type": "default"}}
        assert read(rope_parameters=apart).max_position_embeddings == context


def test_what_is_not_understood_is_said() -> None:
    strange = read(rope_scaling={"rope_type": "spiral", "factor": 9, "twist": 3})
    assert strange.max_position_embeddings == 8192
    assert any("'spiral' is not understood" in note for note in strange.notes)
    assert any("rope_scaling.twist is not understood" in note for note in strange.notes)
    with pytest.raises(DataError, match=r"key 'rope_scaling.factor' is 0.5"):
        read(rope_scaling={"rope_type": "linear", "factor": 0.5})


def test_longer_prompts_are_refused_with_what_to_set() -> None:
    def reason(model: Model, length: int) -> str:
        problem = bs.Problem(
            model=model,
            hardware="h200-sxm",
            workload=bs.Workload(input_len=length, output_len=100),
        )
        return lower(problem).lane(Parallelism()).reason

    linear = read(rope_scaling={"rope_type": "linear", "factor": 2.0})
    assert reason(linear, 16_000) == ""
    assert "reads at most 16,384" in reason(linear, 30_000)
    assert '"rope_type": "yarn", "factor": 4' in reason(read(), 30_000)
    yarn = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8192}
    assert reason(read(rope_scaling=yarn), 100_000) == ""


def kinds(model: Model) -> str:
    return "".join("L" if g.attention.window else "G" for g in model.architecture.layers)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "mistral", "sliding_window": 64}, "LLLLLLLL"),
        ({"model_type": "mistral", "sliding_window": None}, "GGGGGGGG"),
        (
            {"model_type": "exaone4", "sliding_window": 64, "sliding_window_pattern": "LLLG"},
            "LLLGLLLG",
        ),
        ({"model_type": "exaone4", "sliding_window": 64, "sliding_window_pattern": 2}, "LGLGLGLG"),
        ({"model_type": "exaone4", "sliding_window": None}, "GGGGGGGG"),
        ({"model_type": "cohere2", "sliding_window": 64}, "LLLGLLLG"),
        ({"model_type": "olmo3", "sliding_window": 64}, "LLLGLLLG"),
        ({"model_type": "smollm3", "sliding_window": 64, "use_sliding_window": False}, "GGGGGGGG"),
        *(
            (
                {
                    "model_type": kind,
                    "sliding_window": 64,
                    "layer_types": ["full_attention", "sliding_attention"] * 4,
                },
                "GLGLGLGL",
            )
            for kind in ("llama", "mistral", "ministral", "olmo3", "exaone4", "cohere2", "seed_oss")
        ),
    ],
)
def test_windows(changes: dict[str, Any], expected: str) -> None:
    assert kinds(read(**changes)) == expected


def test_layer_types_that_are_not_applied_are_said() -> None:
    types = ["full_attention", "sliding_attention"] * 4
    model = read(model_type="qwen2", layer_types=types, sliding_window=64)
    assert any("sliding_attention not applied" in note for note in model.notes)
    with pytest.raises(DataError, match="sliding_window' is missing, but layer_types"):
        read(layer_types=types)
    with pytest.raises(DataError, match="is not made of L"):
        read(sliding_window=64, sliding_window_pattern="LXG")


def test_towers_are_estimated() -> None:
    """CLIP-L/14 at 336 pixels: 303.5 million parameters; its projector to 1024 adds 3 million."""
    vision = {"model_type": "clip_vision_model", "hidden_size": 1024}
    values = {"model_type": "llava", "text_config": LLAMA, "vision_config": vision}
    model = model_from_config(values, name="mine", where="mine.json")
    assert model.architecture.tower_parameters == pytest.approx(303.5e6, rel=0.03)
    assert any("towers" in note for note in model.notes)
    # Parameters are those of the text part.
    assert model.parameters().total == read().parameters().total
