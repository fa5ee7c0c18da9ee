"""Hybrids start with budgets of their own, hand over both ways, and split prompts by length."""

from __future__ import annotations

import json

import pytest
import yaml

from bestserve.errors import InputError
from bestserve.launch.formats import written

PLAN = "2p-tp4-tokens8192+2d-tp4-tokens256-prefill-upto600"


def flag(words, name: str) -> str:
    return words[words.index(name) + 1]


def started(deployment) -> list:
    return [p for i in deployment.instances for _, p in deployment.processes(i)]


def test_vllm_gives_each_pool_its_budget_and_role(printed):
    words = [p.words for p in started(printed.deployment("vllm", PLAN))]
    assert [flag(w, "--max-num-batched-tokens") for w in words] == ["8192"] * 2 + ["256"] * 2
    roles = [json.loads(flag(w, "--kv-transfer-config"))["kv_role"] for w in words]
    assert roles == ["kv_producer"] * 2 + ["kv_both"] * 2


def test_what_vllms_router_does_not_do_is_said(printed):
    remarks = printed.deployment("vllm", PLAN).remarks
    assert any("up to 600 tokens go straight to decode" in r for r in remarks)


def test_dynamo_prefills_short_prompts_locally(printed):
    graph = list(yaml.safe_load_all(written(printed.deployment("vllm", PLAN), "dynamo")))[-1]
    front, prefill, decode = graph["spec"]["components"]
    (container,) = front["podTemplate"]["spec"]["containers"]
    words = container["command"]
    assert flag(words, "--router-mode") == "kv"
    assert "--router-conditional-disagg" in words
    config = json.loads(flag(words, "--router-conditional-disagg-config"))
    assert config["eff_isl_threshold"] == 600
    for worker in (prefill, decode):
        (container,) = worker["podTemplate"]["spec"]["containers"]
        assert json.loads(flag(container["command"], "--kv-events-config"))["publisher"] == "zmq"


def test_a_share_becomes_the_length_that_splits_off_as_many(printed):
    import bestserve as bs

    workload = bs.Workload(input_len=bs.Uniform(100, 1100), output_len=100)
    deployment = printed.deployment("vllm", "2p-tp4+2d-tp4-prefill30", workload=workload)
    (graph,) = list(yaml.safe_load_all(written(deployment, "dynamo")))[-1:]
    (container,) = graph["spec"]["components"][0]["podTemplate"]["spec"]["containers"]
    config = json.loads(flag(container["command"], "--router-conditional-disagg-config"))
    assert config["eff_isl_threshold"] == pytest.approx(400, abs=20)
    assert any("engines by length" in r for r in deployment.remarks)


def test_tensorrt_llm_has_the_threshold_in_its_router(printed):
    router = printed.deployment("tensorrt-llm", PLAN).router
    (text,) = router.files.values()
    assert yaml.safe_load(text)["conditional_disagg_config"] == {"max_local_prefill_length": 600}


@pytest.mark.parametrize(
    ("engine", "plan", "why"),
    [
        ("sglang", PLAN, "take no prompts"),
        ("vllm", "2p-tp4-decode+2d-tp4-prefill", "keeps answers"),
        ("vllm", "2p-tp4+2d-tp4-prefill-flow90", "moves decodes"),
    ],
)
def test_what_no_engine_runs_is_refused(printed, engine, plan, why):
    with pytest.raises(InputError, match=why):
        _ = printed.deployment(engine, plan).family


def test_priorities_are_vllms(printed):
    import bestserve as bs

    classes = [
        {"name": name, "share": 0.5, "input_len": 500, "output_len": 100, "priority": priority}
        for name, priority in (("chat", 0), ("batch", 2))
    ]
    workload = bs.Workload(classes=classes)
    deployment = printed.deployment("vllm", "1m-tp4", workload=workload)
    (process,) = started(deployment)
    assert flag(process.words, "--scheduling-policy") == "priority"
    assert any("chat 0, batch 2" in remark for remark in deployment.remarks)
    alike = bs.Workload(classes=[c | {"priority": 1} for c in classes])
    (process,) = started(printed.deployment("vllm", "1m-tp4", workload=alike))
    assert "--scheduling-policy" not in process.words
    with pytest.raises(InputError, match="priorities are printed for vllm"):
        _ = printed.deployment("sglang", "1m-tp4", workload=workload).family
