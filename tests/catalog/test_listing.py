"""The catalogue as rows: complete, typed, with provenance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bestserve.catalog import (
    catalog_rows,
    describe,
    list_engines,
    list_hardware,
    list_models,
    load_hardware,
    load_model,
)
from bestserve.errors import InputError, UnknownNameError
from bestserve.specs.figure import KINDS

LISTS = {"hardware": list_hardware, "models": list_models, "engines": list_engines}


@pytest.mark.parametrize("kind", LISTS)
def test_one_row_per_record_with_equal_columns(kind: str) -> None:
    rows = catalog_rows(kind)  # type: ignore[arg-type]
    assert [row["name"] for row in rows] == list(LISTS[kind]())
    assert len({tuple(row) for row in rows}) == 1
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("name", [*list_hardware(), *list_models(), *list_engines()])
def test_every_figure_has_kind_and_source(name: str) -> None:
    rows = describe(name)
    assert rows[0].field == "name"
    assert len({row.field for row in rows if row.field != "note"}) == len(
        [row for row in rows if row.field != "note"]
    )
    for row in rows:
        if isinstance(row.value, (int, float)):
            assert row.unit
            assert row.kind in KINDS
            assert row.source


def test_hardware_rows_carry_the_figures() -> None:
    rows = {row.field: row for row in describe("NVIDIA H100 80GB HBM3")}
    assert rows["memory_bandwidth"].value == load_hardware("h100-sxm").memory_bandwidth.value
    assert rows["memory_bandwidth"].unit == "B/s"
    assert "datasheet" in rows["memory_bandwidth"].source


def test_model_rows_add_up() -> None:
    rows = {row.field: row.value for row in describe("deepseek-ai/DeepSeek-V3")}
    counts = load_model("deepseek-ai/DeepSeek-V3").parameters()
    assert rows["parameters_total"] == counts.total == 671_026_419_200
    parts = ("embedding", "lm_head", "attention", "dense_ffn", "experts", "shared_experts")
    parts += ("router", "norms", "extra")
    assert sum(rows[f"parameters_{part}"] for part in parts) == counts.total  # type: ignore[misc]


def test_own_files_are_described(tmp_path: Path) -> None:
    gpu = tmp_path / "mine.toml"
    gpu.write_text('extends = "h100-sxm"\n[changes]\nmemory_bandwidth = "x2"\n')
    rows = {row.field: row for row in describe(str(gpu))}
    assert rows["memory_bandwidth"].value == 6.7e12
    engine = tmp_path / "engine.toml"
    engine.write_text(
        'extends = "vllm"\n[figures]\n'
        'a_step = { value = 2e-3, unit = "s", kind = "measured", source = "my profile" }\n'
    )
    rows = {row.field: row for row in describe(str(engine))}
    assert rows["a_step"].value == 2e-3
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "opt",
                "hidden_size": 8,
                "ffn_dim": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "vocab_size": 10,
                "max_position_embeddings": 4,
            }
        )
    )
    assert describe(str(config))[0].source == f"model config {config}"
    assert describe(str(tmp_path))[0].source == f"model config {config}"


def test_unknown_and_ambiguous_names() -> None:
    with pytest.raises(UnknownNameError, match=r"GPU, engine or model 'vlm'.*nearest: vllm"):
        describe("vlm")
    with pytest.raises(InputError, match="ambiguous"):
        describe("A100")
