"""Runs of a prediction grow until they tell what it states; what they leave open is said."""

from __future__ import annotations

import pytest

import bestserve as bs
from bestserve.answers import precision
from bestserve.answers.precision import TAIL, roughly, shares, tail_doubts, telling_run, told
from bestserve.lowering import lower
from bestserve.models.system import System


@pytest.fixture(scope="module")
def system() -> System:
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="l40s",
        gpus=1,
        workload=bs.Workload(input_len="lognormal:900,1", output_len="lognormal:60,1"),
    )
    return lower(problem).system("1m-tp1")


def test_a_run_grows_until_it_tells(system, monkeypatch):
    monkeypatch.setattr(precision, "MOST_REQUESTS", 400_000)
    usual = telling_run(system, 6.0, None, most=1)
    worst = max(shares(usual).values())
    monkeypatch.setattr(precision, "ROUGH", worst * 1.01)
    assert len(telling_run(system, 6.0, None)) == len(usual)
    monkeypatch.setattr(precision, "ROUGH", worst * 0.7)
    longer = telling_run(system, 6.0, None)
    assert len(longer) > 2 * len(usual)
    assert max(shares(longer).values()) < worst


def test_a_rough_tail_is_said_and_a_rough_body_lowers_trust(system, monkeypatch):
    run = telling_run(system, 6.0, None, most=1)
    found = shares(run)
    body = max(share for (_, name), share in found.items() if name not in TAIL)
    tail = max(share for (_, name), share in found.items() if name in TAIL)
    assert body < tail
    monkeypatch.setattr(precision, "ROUGH", (body + tail) / 2)
    assert told(run).high
    assert tail_doubts(run)[0].startswith("99th percentiles: the run tells p99 ")
    assert told(run).reasons == tail_doubts(run)
    monkeypatch.setattr(precision, "ROUGH", body * 0.9)
    assert not told(run).high
    assert roughly(run, ()) == ""
