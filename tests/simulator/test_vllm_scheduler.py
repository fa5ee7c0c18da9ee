"""The simulator does what vLLM's scheduler does, in order and to the token."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def _load() -> Any:
    path = ROOT / "validation" / "vllm_scheduler.py"
    spec = importlib.util.spec_from_file_location("vllm_scheduler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vllm_scheduler"] = module
    spec.loader.exec_module(module)
    return module


referee = _load()


def test_every_request_of_every_case_comes_out_when_vllm_says() -> None:
    stored = referee.load()
    assert {a["case"] for a in stored["answers"]} == {c.name for c in referee.CASES}
    for found in referee.comparisons(stored):
        assert found.different == 0, found
        assert found.preemptions[0] == found.preemptions[1], found


def test_the_cases_evict_and_the_two_modes_differ() -> None:
    answers = referee.load()["answers"]
    assert sum(sum(a["preempted"]) for a in answers) > 100
    later = []
    for one, other in zip(answers[::2], answers[1::2], strict=True):
        assert one["case"] == other["case"]
        later.append(float(np.median(np.array(other["first"]) - np.array(one["first"]))))
    assert sum(seconds > 5e-3 for seconds in later) >= 8


@pytest.mark.slow
def test_installed_vllm_still_does_what_is_stored() -> None:
    python = os.environ.get("BESTSERVE_VLLM_PYTHON")
    if not python:
        pytest.skip("BESTSERVE_VLLM_PYTHON is not set: no vLLM to ask")
    cases = [c for c in referee.CASES if c.name in ("chat", "evicting all the time")]
    asked = [(c, mode) for c in cases for mode in (False, True)]
    answers = referee.ask_vllm(
        python,
        [
            referee.question(c, referee.stream(c, referee.SEED), asynchronous=mode)
            for c, mode in asked
        ],
    )
    stored = {(a["case"], a["async_scheduling"]): a for a in referee.load()["answers"]}
    for (case, mode), answer in zip(asked, answers, strict=True):
        before = stored[case.name, mode]
        np.testing.assert_allclose(answer["first"], before["first"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(answer["last"], before["last"], rtol=0, atol=1e-9)
        assert answer["preempted"] == before["preempted"]
