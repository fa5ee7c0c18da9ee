"""Figures beyond any hardware, lists too short: an answer or a sentence, no bare ValueError."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w

import bestserve as bs
from bestserve.errors import BestserveError, DataError
from bestserve.lowering import lower

RECORD = Path(bs.__file__).parent / "data" / "hardware" / "a10.toml"
FIGURES = sorted(tomllib.loads(RECORD.read_text())["figures"])


@pytest.mark.parametrize("value", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("figure", FIGURES)
def test_any_figure_gives_a_step_time_or_a_sentence(tmp_path, figure, value):
    record = tomllib.loads(RECORD.read_text())
    record["figures"][figure]["value"] = value
    file = tmp_path / "own.toml"
    file.write_text(tomli_w.dumps(record))
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware=str(file), gpus=2,
        workload={"input_len": 100, "output_len": 10},
    )  # fmt: skip
    said, time = "", 1.0
    try:
        time = float(lower(problem).system("1m-tp2").lane.step(T=1, A=0, K=10))
    except BestserveError as error:
        said = str(error)
    assert time > 0
    assert len(said) <= 500


def test_a_list_shorter_than_the_layers_is_named():
    from bestserve.catalog.models import model_from_config

    config = {
        "model_type": "minimax_m3", "hidden_size": 512, "num_hidden_layers": 3, "vocab_size": 1000,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
        "dense_intermediate_size": 1024, "moe_intermediate_size": 256, "num_local_experts": 8,
        "num_experts_per_tok": 2, "shared_intermediate_size": 256, "moe_layer_freq": [0, 1, 1],
        "sparse_attention_config": {"sparse_attention_freq": [1]}, "max_position_embeddings": 4096,
    }  # fmt: skip
    with pytest.raises(DataError, match="1 entries for 3 layers"):
        model_from_config(config, name="m", where="config.json")
