"""Every type against the parameter count of Transformers' own model class.

`parameters_by_type.json`: per type a config of few layers and experts, with what differs from the
reader's defaults, and the number of parameters of the model class of Transformers 5.24 that it
builds (counted on PyTorch's meta device; nothing of the weights is needed).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bestserve.catalog import model_from_config
from bestserve.errors import DataError

COUNTS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("parameters_by_type.json").read_text()
)


@pytest.mark.parametrize("model_type", COUNTS)
def test_parameters(model_type: str) -> None:
    known = COUNTS[model_type]
    model = model_from_config(known["config"], name="mine", where="mine.json")
    assert model.parameters().total == pytest.approx(known["parameters"], rel=5e-3)


HOSTILE: list[Any] = [0, -1, 1.5, "x", [], [None], {"a": 1}, True, float("nan"), 10**30]


@pytest.mark.parametrize("model_type", COUNTS)
def test_broken_configs_are_refused_in_one_line_or_harmless(model_type: str) -> None:
    """Each key dropped, renamed and contradicted."""
    config = COUNTS[model_type]["config"]
    for key, value in config.items():
        rest = {k: v for k, v in config.items() if k != key}
        broken = [rest, {**rest, f"{key}s": value}, *({**rest, key: v} for v in HOSTILE)]
        if isinstance(value, list):
            broken += [{**rest, key: value[:-1]}, {**rest, key: ["odd", *value[1:]]}]
        for values in broken:
            try:
                model = model_from_config(values, name="mine", where="mine.json")
            except DataError as refused:
                message = str(refused)
                assert "mine.json" in message
                assert "\n" not in message
                assert len(message) < 500
            else:
                assert 0 < model.parameters().active < 1e22
