"""Configurations that compete: the envelope is that of evaluating all of them to the end."""

from __future__ import annotations

import numpy as np
import pytest

from bestserve.errors import InputError
from bestserve.fleet.configurations import buildable
from bestserve.fleet.contest import Rules, contest
from bestserve.fleet.referee import measured_goodput
from bestserve.fleet.stage import Measure, Stage, stage_goodput
from bestserve.fleet.tabulate import evaluate
from bestserve.models.goodput import decode_goodput, goodput, prefill_goodput
from bestserve.models.system import Collocated, Routing
from bestserve.specs.fleet import Deployed, Fleet, FleetClass, FleetModel, GpuGroup
from bestserve.specs.lengths import Geometric, LogNormal

CHAT = FleetClass(
    name="chat",
    input_len=LogNormal(800, cv=1.0),
    output_len=Geometric(200),
    slo="ttft:500 tpot:40",
    rate=10,
)
RAG = FleetClass(
    name="rag",
    input_len=LogNormal(5000, cv=0.5),
    output_len=LogNormal(150, cv=0.7),
    slo="ttft:4000 tpot:60",
    rate=2,
)
LLAMA = FleetModel(model="meta-llama/Llama-3.1-8B", name="llama", classes=(CHAT, RAG))
FLEET = Fleet(gpus=(GpuGroup(hardware="l40s", count=8),), models=(LLAMA,))
EVERYTHING = Rules(across=False, near=0.0)


def rows(rules: Rules, role: int, routing: Routing, measure: Measure | None) -> dict[int, tuple]:
    """Size → (best table of that size, configurations kept)."""
    built = buildable(FLEET, 0, 0, 2.5e10)
    members = [c for c in built.configurations if c.role == role]
    loads = evaluate(FLEET).loads[:1]
    found: dict[int, tuple] = {}
    for i, table in contest(members, loads, 8, routing, measure, rules):
        size = members[i].gpus
        before, n = found.get(size, (np.zeros_like(table), 0))
        found[size] = np.maximum(before, table), n + 1
    return found


@pytest.mark.parametrize("role", [0, 1, 2], ids=["collocated", "prefill", "decode"])
def test_nothing_that_could_win_is_lost(role: int) -> None:
    whole = rows(EVERYTHING, role, "random", None)
    raced = rows(Rules(node=8), role, "random", None)
    assert set(raced) <= set(whole)
    for size, (table, _) in whole.items():
        if size in raced:
            assert raced[size][0] == pytest.approx(table, rel=2e-3)
            continue
        # Dropped: smaller instances on the same GPUs match it.
        k = np.arange(table.size)
        matched = max(float(t[k[-1] * (size // s)]) for s, (t, _) in raced.items() if s < size)
        assert matched >= table[-1] * (1 - 2e-3)
    assert sum(n for _, n in raced.values()) <= sum(n for _, n in whole.values())


def test_pooled_tables_compete_at_every_count() -> None:
    whole = rows(EVERYTHING, 1, "least_outstanding", measured_goodput)
    raced = rows(Rules(node=8), 1, "least_outstanding", measured_goodput)
    for size, (table, _) in raced.items():
        # Two searches of the same simulation stop within 0.2 % of each other.
        assert table == pytest.approx(whole[size][0], rel=5e-3)


def test_exempt_configurations_are_kept() -> None:
    built = buildable(FLEET, 0, 0, 2.5e10)
    members = [c for c in built.configurations if c.role == 0]
    loads = evaluate(FLEET).loads[:1]
    kept = {i for i, _ in contest(members, loads, 8, "random", None, Rules(node=8))}
    everything = {i for i, _ in contest(members, loads, 8, "random", None, EVERYTHING)}
    loser = min(everything - kept)
    exempt = [i == loser for i in range(len(members))]
    again = contest(members, loads, 8, "random", None, Rules(node=8, exempt=exempt))
    assert loser in {i for i, _ in again}


def test_larger_instances_only_lose_to_what_fills_their_place() -> None:
    """An instance of 24 GPUs takes three nodes of 8; instances of 6 leave 2 GPUs of each empty."""
    from bestserve.fleet.contest import _smaller

    table = np.arange(9.0)
    assert _smaller({6: table}, 24, 2, 8).tolist() == [0, 0, 0]
    assert _smaller({4: table}, 24, 1, 8).tolist() == [0, 6]
    assert _smaller({3: table}, 6, 2, 8).tolist() == [0, 2, 4]


def test_a_floor_ends_a_search_early_and_changes_nothing_else() -> None:
    built = buildable(FLEET, 0, 0, 2.5e10)
    load = evaluate(FLEET).loads[0]
    for c in built.configurations[::5]:
        stage = Stage(c.role, c.lane, 1, (load,), c.transfer)
        rate = stage_goodput(stage)
        if rate > 0:
            assert stage_goodput(stage, floor=0.9 * rate) == pytest.approx(rate, rel=2e-3)
            assert stage_goodput(stage, floor=1.02 * rate) == 0.0
    c = built.configurations[0]
    target = load.target
    for found in (
        goodput(Collocated(lane=c.lane, replicas=1, lengths=load.lengths), target, floor=1e6),
        prefill_goodput(c.lane, load.lengths, target, floor=1e6),
        decode_goodput(c.lane, load.lengths, target, floor=1e6),
    ):
        assert found.rate == 0.0
        assert "least asked for" in found.detail


def test_simulated_floors_and_searches_agree() -> None:
    built = buildable(FLEET, 0, 0, 2.5e10)
    c = next(c for c in built.configurations if c.role == 0)
    stage = Stage(c.role, c.lane, 1, evaluate(FLEET).loads[:1])
    rate = measured_goodput(stage)
    assert measured_goodput(stage, floor=0.9 * rate) == pytest.approx(rate, rel=4e-3)
    assert measured_goodput(stage, floor=1.02 * rate) == 0.0
    assert measured_goodput(stage, near=0.5 * rate) == pytest.approx(rate, rel=4e-3)


def test_what_runs_today_is_among_the_configurations() -> None:
    running = Deployed(gpu="l40s", model="llama", pools="2m-tp2-tokens4096")
    fleet = FLEET.model_copy(update={"deployed": (running,), "start_price": 1.0})
    found = evaluate(fleet)
    assert found.requirements.deployed.sum() == 2
    key = int(np.argmax(found.requirements.deployed))
    assert found.configurations[key].max_num_batched_tokens == 4096


def test_batch_limits_that_run_today_and_those_asked_for_are_tried() -> None:
    running = Deployed(gpu="l40s", model="llama", pools="2m-tp2-seqs64")
    model = LLAMA.model_copy(update={"max_num_seqs": (32,)})
    built = buildable(
        FLEET.model_copy(update={"deployed": (running,), "models": (model,)}), 0, 0, 2.5e10
    )
    seqs = {c.max_num_seqs for c in built.configurations if c.role == 0}
    assert seqs == {32, 64}
    assert {c.max_num_seqs for c in built.configurations if c.role == 1} == {None}
    assert {c.lane.max_num_seqs for c in built.configurations if c.role == 2} == {32}


def test_what_runs_today_but_cannot_be_planned_is_refused() -> None:
    running = Deployed(gpu="l40s", model="llama", pools="2m-tp16")
    with pytest.raises(InputError, match="2m-tp16"):
        evaluate(FLEET.model_copy(update={"deployed": (running,)}))
