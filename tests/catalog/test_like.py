"""Unknown types read as known ones: only when asked, only if the parameters agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bestserve.catalog import load_model
from bestserve.catalog.like import load_model_like
from bestserve.errors import DataError, InputError

OURS: dict[str, Any] = {
    "model_type": "ours",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 32_000,
}
LAYER = 4 * 1024 * 1024 + 3 * 1024 * 4096
TOTAL = 8 * LAYER + 2 * 32_000 * 1024


def folder(tmp_path: Path, **index: float) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(OURS))
    if index:
        file = tmp_path / "model.safetensors.index.json"
        file.write_text(json.dumps({"metadata": index, "weight_map": {}}))
    return tmp_path


def test_unknown_types_stay_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'ours', which bestserve does not know"):
        load_model(folder(tmp_path))


@pytest.mark.parametrize(
    ("index", "stated"),
    [({}, 168e6 * 1.19), ({"total_size": 2.0 * TOTAL}, None), ({"total_parameters": TOTAL}, None)],
)
def test_the_count_confirms(index: dict[str, float], stated: float | None, tmp_path: Path) -> None:
    model = load_model_like(folder(tmp_path, **index), "llama", float(TOTAL) if stated else None)
    assert model.parameters().total == pytest.approx(TOTAL, rel=1e-3)
    assert "type 'ours' read like 'llama'" in model.notes[0]


def test_a_quantised_checkpoint_is_confirmed_by_its_bytes(tmp_path: Path) -> None:
    path = folder(tmp_path, total_size=8 * LAYER * 0.51953 + 2 * 2 * 32_000 * 1024)
    section = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    (path / "config.json").write_text(json.dumps({**OURS, **section}))
    assert load_model_like(path, "llama").weights == "int4"


def test_what_is_not_alike_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which nothing confirms; give --parameters"):
        load_model_like(folder(tmp_path), "llama")
    with pytest.raises(DataError, match=r"it is not alike"):
        load_model_like(folder(tmp_path), "llama", 1.1 * TOTAL)
    with pytest.raises(DataError, match=r"it is not alike"):
        load_model_like(folder(tmp_path, total_size=3.0 * TOTAL), "llama")
    with pytest.raises(InputError, match=r"'lama' is no type that bestserve reads; nearest: llama"):
        load_model_like(folder(tmp_path), "lama", TOTAL)
    with pytest.raises(DataError, match="is missing"):
        load_model_like(folder(tmp_path), "mixtral", TOTAL)


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": "meta-llama/Llama-3.1-8B", "r": 16}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(DataError, match=r"LoRA adapter of 'meta-llama/Llama-3.1-8B'; give that"):
        load_model(tmp_path)


def test_the_command_line_offers_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bestserve.cli import run

    path = str(folder(tmp_path) / "config.json")
    asked = ["memory", "--model", path, "--hardware", "l4", "--max-model-len", "4096"]
    assert run(asked) == 5
    assert run([*asked, "--like", "llama", "--parameters", str(TOTAL), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["kv_tokens"] > 10_000
    assert "read like 'llama'" in err
