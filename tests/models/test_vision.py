"""Images in prompts: tokens as the families' processors make them, and what their tower takes."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import bestserve as bs
from bestserve.catalog import load_hardware
from bestserve.catalog.models import model_from_config
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.step.tower import tower_time
from bestserve.models.step.vision import Vision

TEXT = {
    "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 4, "intermediate_size": 3072,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 262144, "tie_word_embeddings": True,
}  # fmt: skip
QWEN = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 16,
        "spatial_merge_size": 2, "out_hidden_size": 1024}  # fmt: skip
PIXTRAL = {"model_type": "pixtral", "hidden_size": 1024, "num_hidden_layers": 24,
           "intermediate_size": 4096, "patch_size": 14, "image_size": 1540}  # fmt: skip
GEMMA = {"model_type": "siglip_vision_model", "hidden_size": 1152, "num_hidden_layers": 27,
         "intermediate_size": 4304, "patch_size": 14, "image_size": 896}  # fmt: skip
LLAMA4 = {"model_type": "llama4_vision_model", "patch_size": 14, "image_size": 336,
          "pixel_shuffle_ratio": 0.5}  # fmt: skip
INTERN = {"model_type": "intern_vit_6b", "hidden_size": 1024, "num_hidden_layers": 24,
          "intermediate_size": 4096, "patch_size": 14, "image_size": 448}  # fmt: skip
DYNAMIC = {"downsample_ratio": 0.5, "dynamic_image_size": True, "use_thumbnail": True,
           "max_dynamic_patch": 12, "force_image_size": 448}  # fmt: skip
CLIP = {"model_type": "clip_vision_model", "patch_size": 14, "image_size": 336}


def checkpoint(kind: str, tower: dict[str, object], **more: object) -> dict[str, object]:
    text = {**TEXT, "model_type": "qwen3_vl_text" if kind == "qwen3_vl" else "qwen3"}
    return {"model_type": kind, "text_config": text, "vision_config": tower, **more}


def vision(kind: str, tower: dict[str, object], **more: object) -> Vision | None:
    config = checkpoint(kind, tower, **more)
    return model_from_config(config, name="m", where="config.json").architecture.vision


@pytest.mark.parametrize(("kind", "tower", "more", "size", "tokens"), [
    # Qwen3-VL: sides rounded to 32 pixels, one token each 32 × 32, a token before and one after
    ("qwen3_vl", QWEN, {}, (1024, 1024), 1026),
    ("qwen3_vl", QWEN, {}, (1280, 720), 40 * 22 + 2),
    # a photograph of 100 megapixels is shrunk to 16,384 tokens
    ("qwen3_vl", QWEN, {}, (10240, 10240), 16384 + 2),
    # Mistral Small 3.1: 28 pixels a token, one break or end a row, the longest side 1540
    ("mistral3", PIXTRAL, {"spatial_merge_size": 2}, (1024, 1024), 37 * 38),
    ("mistral3", PIXTRAL, {"spatial_merge_size": 2}, (3080, 1540), 55 * 28 + 28),
    # Gemma 3: 256 whatever the size, a token before and one after
    ("gemma3", GEMMA, {}, (300, 200), 258),
    # Llama 4: a small image is one tile of 144 and three marks; 900 × 500 is a grid of 3 × 2 and
    # the whole once more, 1008 of the image and a separator after each tile; 768 × 768 is 3 × 3
    ("llama4", LLAMA4, {}, (64, 64), 144 + 3),
    ("llama4", LLAMA4, {}, (900, 500), 1008 + 6 + 3),
    ("llama4", LLAMA4, {}, (640, 536), 5 * 144 + 4 + 3),
    ("llama4", LLAMA4, {}, (768, 768), 10 * 144 + 9 + 3),
    # larger than any canvas: shrunk as little as may be, 4 × 4 tiles
    ("llama4", LLAMA4, {}, (4000, 4000), 17 * 144 + 16 + 3),
    # InternVL: 256 a tile, the closest ratio, the larger grid where the pixels fill half of it
    ("internvl_chat", INTERN, DYNAMIC, (448, 448), 256 + 2),
    ("internvl_chat", INTERN, DYNAMIC, (800, 400), 3 * 256 + 2),
    ("internvl_chat", INTERN, DYNAMIC, (1024, 1024), 10 * 256 + 2),
    ("internvl_chat", INTERN, {**DYNAMIC, "max_dynamic_patch": 6}, (1024, 1024), 5 * 256 + 2),
    ("internvl_chat", INTERN, {**DYNAMIC, "use_thumbnail": False}, (800, 400), 2 * 256 + 2),
    ("internvl_chat", INTERN, {"downsample_ratio": 0.5}, (1024, 1024), 256 + 2),
    # LLaVA 1.5: a grid of 24 × 24
    ("llava", CLIP, {}, (1000, 1000), 576),
])  # fmt: skip
def test_an_image_becomes_as_many_tokens_as_its_processor_makes(kind, tower, more, size, tokens):
    found = vision(kind, tower, **more)
    assert found is not None
    assert found.tokens(*size) == tokens


def test_a_tower_takes_at_least_its_products_at_the_peak() -> None:
    found = vision("qwen3_vl", QWEN)
    assert found is not None
    device = load_hardware("h100-sxm").device()
    patches = found.patches(1024, 1024)
    assert patches == 4096
    layer = 2 * patches * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * patches**2 * 1024
    least = 24 * layer / 989e12
    assert least < tower_time(found, patches, device) < 4 * least
    half = tower_time(found, patches, device, tp=2)
    assert 0.5 < half / tower_time(found, patches, device) < 1


def test_tiles_attend_to_themselves_only() -> None:
    found = vision("llama4", LLAMA4)
    assert found is not None
    assert (found.pieces(64, 64), found.pieces(900, 500)) == (1, 7)
    assert found.patches(900, 500) == 7 * 576
    device = load_hardware("h100-sxm").device()
    whole, tiled = (tower_time(found, 7 * 576, device, pieces=n) for n in (1, 7))
    one = tower_time(found, 576, device)
    assert one < tiled < min(whole, 7 * one * 1.01)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(checkpoint("qwen3_vl", QWEN)))
    return str(file)


def problem(config: str, **workload: object) -> bs.Problem:
    lengths = {"input_len": 100, "output_len": 50}
    return bs.Problem(model=config, hardware="l40s", gpus=1, workload={**lengths, **workload})


def test_prompts_grow_by_the_images_and_each_costs_its_tower_once(config) -> None:
    text = lower(problem(config))
    images = lower(problem(config, images_per_request=2, image_size="1024x1024"))
    assert images.mean_lengths[0] == 100 + 2 * 1026
    plain, with_tower = (x.system("1m-tp1").lane.step for x in (text, images))
    vision = images.model.architecture.vision
    one = tower_time(vision, 4096, images.device)
    # a prompt alone in its step: what the same tokens of text take, and the towers
    n = 100 + 2 * 1026
    pairs = n * (n + 1) / 2
    same = lower(problem(config, input_len=n)).system("1m-tp1").lane.step
    more = float(with_tower(n, pairs, 0.0)) - float(same(n, pairs, 0.0))
    assert math.isclose(more, 2 * one, rel_tol=1e-6)
    # decodes see no tower
    assert np.isclose(float(with_tower(8, 0.0, 800.0)), float(same(8, 0.0, 800.0)))
    assert plain.a < with_tower.a


def test_formulas_and_simulator_agree_on_images_and_trust_is_low(config) -> None:
    asked = problem(config, images_per_request=1, image_size="1280x720")
    formula = bs.predict(asked, "1m-tp1", 8.0, method="analytic")
    simulated = bs.predict(asked, "1m-tp1", 8.0, method="simulated")
    assert formula.ttft.mean == pytest.approx(simulated.ttft.mean, rel=0.05)
    assert not formula.trust.high
    assert any("images" in reason for reason in formula.trust.reasons)


def test_a_model_without_a_known_rule_is_refused_in_a_sentence() -> None:
    text = bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=1,
        workload={"input_len": 100, "output_len": 10, "images_per_request": 1},
    )  # fmt: skip
    with pytest.raises(InputError, match="not known here"):
        bs.predict(text, "1m-tp1", 1.0)


def test_the_benchmark_sends_images_of_the_size_beside_the_text(config) -> None:
    from bestserve.launch.benchmark import bench_command
    from bestserve.specs.strategy import Strategy

    lowered = lower(problem(config, images_per_request=2, image_size="1280x720"))
    words = bench_command(lowered, Strategy.parse("1m-tp1"), "http://h:8000", "m", 2.0)
    said = dict(itertools.pairwise(words))
    assert said["--dataset-name"] == "random-mm"
    assert said["--random-input-len"] == "100"
    assert said["--random-mm-base-items-per-request"] == "2"
    assert said["--random-mm-bucket-config"] == "{(720, 1280, 1): 1.0}"
