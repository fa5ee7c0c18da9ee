"""Commands start as printed: the plan's limits, ports, devices, machines, hand-over and router."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import bestserve as bs
from bestserve.errors import InputError
from bestserve.launch.benchmark import bench_command, needs_trace, uncounted, write_trace
from bestserve.launch.deployment import engine_family
from bestserve.launch.formats import written
from bestserve.launch.process import host_argument
from bestserve.launch.prompts import BLOCK
from bestserve.lowering import lower
from bestserve.readers.traces import read_trace
from bestserve.specs.strategy import Strategy

ENGINES = ["vllm", "sglang", "tensorrt-llm"]
SEQS = {"vllm": "--max-num-seqs", "sglang": "--max-running-requests"} | {
    "tensorrt-llm": "--max_batch_size"
}
TOKENS = {"vllm": "--max-num-batched-tokens", "sglang": "--chunked-prefill-size"} | {
    "tensorrt-llm": "--max_num_tokens"
}


def started(deployment) -> list[tuple[str, object]]:
    """Return (host, process) of every engine process."""
    return [p for i in deployment.instances for p in deployment.processes(i)]


def flag(words, name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gets_the_limits_of_the_plan(printed, engine):
    for _, process in started(printed.deployment(engine, "2m-tp4-seqs128-tokens2048")):
        assert flag(process.words, SEQS[engine]) == "128"
        assert flag(process.words, TOKENS[engine]) == "2048"
        assert "meta-llama/Llama-3.1-70B" in process.words


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("vllm", "--max-model-len"),
        ("sglang", "--context-length"),
        ("tensorrt-llm", "--max_seq_len"),
    ],
)
def test_the_context_is_limited_where_the_cache_cannot_hold_the_models_own(printed, engine, name):
    small = printed.deployment(
        engine, "1m-tp1", model="meta-llama/Llama-3.1-8B", hardware="l4", gpus=1
    )
    ((_, process),) = started(small)
    plan = small.lowered.lane(small.strategy.pools[0].parallelism).plan
    assert 1100 < int(flag(process.words, name)) < plan.kv_capacity_tokens < 131_072
    ((_, large),) = started(printed.deployment(engine, "1m-tp8"))
    assert name not in large.words


def test_vllm_gets_no_more_slots_than_tokens(printed):
    """Else it stops: max_num_batched_tokens must be greater than or equal to max_num_seqs."""
    deployment = printed.deployment("vllm", "2m-tp4-tokens128")
    assert deployment.lowered.engine.max_num_seqs > 128
    assert flag(started(deployment)[0][1].words, "--max-num-seqs") == "128"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_decode_instance_admits_no_more_than_its_cache_holds(printed, engine):
    workload = bs.Workload(input_len=8000, output_len=500)
    deployment = printed.deployment(engine, "1p1d-tp4", workload=workload)
    (_, decode) = started(deployment)[-1]
    pool = deployment.strategy.pools[1]
    held = deployment.lowered.lane(pool.parallelism, role="d").plan.kv_capacity_tokens
    seqs = int(flag(decode.words, SEQS[engine]))
    assert 0.8 * held < seqs * 8500 < held
    assert any("KV cache" in remark for remark in deployment.remarks)
    stated = printed.deployment(engine, "1p1d-tp4-seqs999", workload=workload)
    assert flag(started(stated)[-1][1].words, SEQS[engine]) == "999"


@pytest.mark.parametrize("engine", ENGINES)
def test_instances_of_a_machine_share_neither_ports_nor_gpus(printed, engine):
    deployment = printed.deployment(engine, "4m-tp2")
    processes = [p for _, p in started(deployment)]
    assert len({flag(p.words, "--port") for p in processes}) == 4
    seen = [p.env["CUDA_VISIBLE_DEVICES"] for p in processes]
    assert seen == ["0,1", "2,3", "4,5", "6,7"]
    assert {host for host, _ in started(deployment)} == {"127.0.0.1"}


def test_a_group_is_not_split_over_two_machines(printed):
    deployment = printed.deployment("vllm", "1p-tp2+2d-tp4", gpus_per_node=4, gpus=12)
    placed = [(host, p.env["CUDA_VISIBLE_DEVICES"]) for host, p in started(deployment)]
    assert placed == [("node0", "0,1"), ("node1", "0,1,2,3"), ("node2", "0,1,2,3")]


def test_vllm_spans_machines_by_rank(printed):
    deployment = printed.deployment("vllm", "1m-tp8-pp2", hosts=("10.0.0.1", "10.0.0.2"))
    (first, leader), (second, worker) = started(deployment)
    assert (first, second) == ("10.0.0.1", "10.0.0.2")
    for rank, process in enumerate((leader, worker)):
        assert flag(process.words, "--nnodes") == "2"
        assert flag(process.words, "--node-rank") == str(rank)
        assert flag(process.words, "--master-addr") == "10.0.0.1"
    assert "--headless" in worker.words
    assert "--headless" not in leader.words
    assert "--port" not in worker.words


def test_sglang_spans_machines_by_rank(printed):
    deployment = printed.deployment("sglang", "1m-tp8-pp2")
    for rank, (_, process) in enumerate(started(deployment)):
        assert flag(process.words, "--node-rank") == str(rank)
        assert flag(process.words, "--dist-init-addr").startswith("node0:")


def test_tensorrt_llm_spans_machines_by_mpi(printed):
    ((host, process),) = started(printed.deployment("tensorrt-llm", "1m-tp8-pp2"))
    assert host == "node0"
    assert process.words[:5] == ("mpirun", "--host", "node0:8,node1:8", "-np", "16")


def test_an_instance_that_fills_machines_unevenly_is_refused(printed):
    with pytest.raises(InputError, match="evenly"):
        _ = printed.deployment("vllm", "1m-tp4-pp3").instances


def test_too_few_hosts_are_refused(printed):
    with pytest.raises(InputError, match="takes 2 nodes of 8 GPUs, 1 host is named"):
        _ = printed.deployment("vllm", "2m-tp8", hosts=("a",)).instances


def test_sglang_divides_limits_by_the_ranks_so_they_are_multiplied(printed):
    """Of data-parallel attention: SGLang takes the instance's, the plan has one rank's."""
    deployment = printed.deployment(
        "sglang", "1m-tp1-dp8-ep8-seqs128-tokens8192", model=printed.EXPERTS
    )
    words = started(deployment)[0][1].words
    assert flag(words, "--attn-dp-size") == "8"
    assert flag(words, "--tp-size") == "8"
    assert flag(words, "--max-running-requests") == "1024"
    assert flag(words, "--chunked-prefill-size") == "65536"


def config(process) -> dict:
    ((_, content),) = process.files.items()
    return yaml.safe_load(content)


def test_tensorrt_llms_yaml_says_what_its_options_cannot(printed):
    deployment = printed.deployment(
        "tensorrt-llm", "1m-tp1-dp8-ep8", model=printed.EXPERTS, kv_cache_dtype="fp8"
    )
    ((_, process),) = started(deployment)
    assert config(process)["enable_attention_dp"] is True
    assert config(process)["kv_cache_config"]["dtype"] == "fp8"
    assert "--enable_chunked_prefill" in process.words


def test_tensorrt_llm_disaggregates(printed):
    workload = bs.Workload(input_len=5000, output_len=100)
    deployment = printed.deployment("tensorrt-llm", "2p1d-tp4", workload=workload)
    prefill, _, decode = (p for _, p in started(deployment))
    for process in (prefill, decode):
        assert config(process)["cache_transceiver_config"]["max_tokens_in_buffer"] >= 5000
    assert config(prefill)["disable_overlap_scheduler"] is True
    assert "disable_overlap_scheduler" not in config(decode)
    router = config(deployment.router)
    assert router["context_servers"]["urls"] == ["node0:8000", "node0:8100"]
    assert router["generation_servers"]["num_instances"] == 1
    assert deployment.router.words[:2] == ("trtllm-serve", "disaggregated")


def test_vllm_hands_over_by_host_and_port_of_each_instance(printed):
    deployment = printed.deployment("vllm", "2p1d-tp4", hosts=("a", "b"))
    channels = {
        (p.env["VLLM_NIXL_SIDE_CHANNEL_HOST"], p.env["VLLM_NIXL_SIDE_CHANNEL_PORT"])
        for _, p in started(deployment)
    }
    assert channels == {("a", "5600"), ("a", "5601"), ("b", "5600")}
    roles = [
        json.loads(flag(p.words, "--kv-transfer-config"))["kv_role"] for _, p in started(deployment)
    ]
    assert roles == ["kv_producer", "kv_producer", "kv_consumer"]


def test_sglang_hands_over_by_bootstrap_port(printed):
    deployment = printed.deployment("sglang", "2p1d-tp4")
    words = [p.words for _, p in started(deployment)]
    assert [flag(w, "--disaggregation-mode") for w in words] == ["prefill", "prefill", "decode"]
    ports = [flag(w, "--disaggregation-bootstrap-port") for w in words[:2]]
    assert len(set(ports)) == 2
    router = deployment.router.words
    assert router[router.index("--prefill") + 2] == ports[0]


@pytest.mark.parametrize("routing", ["random", "round_robin", "power_of_two"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_router_chooses_as_the_plan(printed, engine, routing):
    deployment = printed.deployment(engine, "4m-tp2", routing=routing)
    assert flag(deployment.router.words, "--policy") == routing
    urls = deployment.router.words[deployment.router.words.index("--worker-urls") + 1 :]
    assert urls == tuple(f"http://127.0.0.1:{p}" for p in (8000, 8100, 8200, 8300))


def test_what_the_router_does_not_know_is_said(printed):
    deployment = printed.deployment("vllm", "4m-tp2", routing="least_outstanding")
    assert any("knows no least_outstanding" in r for r in deployment.remarks)


def test_one_instance_needs_no_router(printed):
    deployment = printed.deployment("vllm", "1m-tp8")
    assert deployment.router is None
    assert deployment.url == "http://127.0.0.1:8000"


def test_experts_over_machines_get_their_kernels(printed):
    values = {"model": printed.EXPERTS}
    words = started(printed.deployment("vllm", "1p-tp8+1d-tp1-dp16-ep16", **values))[-1][1].words
    assert flag(words, "--all2all-backend") == "deepep_low_latency"
    words = started(printed.deployment("sglang", "1m-tp1-dp16-ep16", **values))[0][1].words
    assert flag(words, "--moe-a2a-backend") == "deepep"
    within = started(printed.deployment("vllm", "1m-tp1-dp8-ep8", **values))[0][1].words
    assert "--all2all-backend" not in within


def test_an_engine_without_translation_is_refused():
    with pytest.raises(InputError, match="no launch command"):
        engine_family("my-engine")


def test_an_engine_of_one_maker_is_refused_on_anothers_gpus(printed):
    with pytest.raises(InputError, match="NVIDIA GPUs, mi300x is made by AMD"):
        _ = printed.deployment("tensorrt-llm", hardware="mi300x").lowered.engine
    assert printed.deployment("vllm", hardware="mi300x").lowered.engine.vendor == ""


HOSTILE = "a'$(touch HACKED)`touch HACKED`; touch HACKED # \"x"


def hostile(printed, name: str):
    one = printed.deployment("tensorrt-llm", "1p1d-tp4")
    record = one.lowered.model.model_copy(update={"name": name, "record": ""})
    return printed.deployment("tensorrt-llm", "1p1d-tp4", model=record)


def test_a_shell_runs_nothing_that_a_name_holds(printed, tmp_path):
    script = written(hostile(printed, HOSTILE), "commands")
    for program in ("trtllm-serve", "vllm", "bestserve"):
        (tmp_path / program).write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> said\n')
        (tmp_path / program).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, check=True, timeout=60)
    assert not (tmp_path / "HACKED").exists()
    assert HOSTILE in (tmp_path / "said").read_text().splitlines()


@pytest.mark.parametrize("form", ["compose", "kubernetes", "dynamo"])
def test_no_format_expands_what_a_name_holds(printed, form):
    """Compose fills in $x, Kubernetes $(x): both are doubled, and come back as they were."""
    text = written(hostile(printed, HOSTILE), form)
    doubled = HOSTILE.replace("$", "$$") if form == "compose" else HOSTILE.replace("$(", "$$(")
    found = [w for d in yaml.safe_load_all(text) for w in words_in(d) if "HACKED" in w]
    assert found
    assert set(found) == {doubled}


def words_in(node) -> list[str]:
    if isinstance(node, dict):
        return [w for value in node.values() for w in words_in(value)]
    if isinstance(node, list):
        return [w for value in node for w in words_in(value)]
    return [node] if isinstance(node, str) else []


@pytest.mark.parametrize("form", ["kserve", "llm-d"])
def test_launchers_with_templates_take_no_name_that_these_would_run(printed, form):
    record = hostile(printed, HOSTILE).lowered.model
    with pytest.raises(InputError, match="templates unquoted"):
        written(printed.deployment("vllm", "1p1d-tp4", model=record), form)


@pytest.mark.parametrize("name", ["--trust-remote-code", "a\nb", "a\ue000HOME\ue001"])
def test_names_that_would_be_read_as_something_else_are_refused(printed, name):
    with pytest.raises(InputError, match="cannot stand in a command"):
        written(hostile(printed, name), "commands")


def test_a_model_on_disk_is_served_from_its_folder(printed, tmp_path):
    source = Path(bs.__file__).parent / "data/models/meta-llama--Llama-3.1-8B/config.json"
    shutil.copy(source, tmp_path)
    model = str(tmp_path / "config.json")
    deployment = printed.deployment("vllm", "1m-tp1", model=model)
    ((_, process),) = started(deployment)
    assert process.words[2] == str(tmp_path)
    assert not any("engines look for" in said for said in deployment.remarks)
    with pytest.raises(InputError, match="containers do not see"):
        written(deployment, "kubernetes")
    other = shutil.copy(source, tmp_path / "llama_config.json")
    said = printed.deployment("vllm", "1m-tp1", model=str(other)).remarks
    assert any(s.startswith(f"engines look for {tmp_path / 'config.json'}") for s in said)


@pytest.mark.parametrize("host", ["-x", "a b", "$(x)", "a;b", "fe80::1", ""])
def test_hosts_are_names_or_addresses(host):
    with pytest.raises(InputError, match="no host name"):
        host_argument(host)


def bench(deployment, rate=8.0):
    one = deployment
    return bench_command(one.lowered, one.strategy, one.url, one.model, rate)


def test_the_benchmark_has_the_objectives_the_rate_and_the_routers_address(printed):
    words = bench(printed.deployment("vllm", "2m-tp4"))
    assert flag(words, "--request-rate") == "8"
    at = words.index("--goodput")
    assert words[at + 1 : at + 3] == ("ttft:1000", "tpot:50")
    assert flag(words, "--random-input-len") == "1000"
    assert flag(words, "--random-range-ratio") == "0"
    assert flag(words, "--base-url") == "http://127.0.0.1:30000"
    assert "gpu=h200-sxm" in words


def test_the_benchmark_has_the_workloads_spread_and_prefixes(printed):
    uniform = bs.Workload(
        input_len=bs.Uniform(500, 1500), output_len=bs.Uniform(90, 110), prefix_cache_hit=0.4
    )
    words = bench(printed.deployment(workload=uniform))
    assert json.loads(flag(words, "--random-range-ratio")) == {"input": 0.5, "output": 0.1}
    assert flag(words, "--random-prefix-len") == "400"
    assert flag(words, "--random-input-len") == "600"


def test_the_benchmark_keeps_a_closed_loop(printed):
    closed = bs.Workload(input_len=1000, output_len=100, max_concurrency=16, num_prompts=80)
    words = bench(printed.deployment(workload=closed), None)
    assert flag(words, "--max-concurrency") == "16"
    assert flag(words, "--num-prompts") == "80"
    assert "--request-rate" not in words


def test_lengths_without_an_option_are_a_trace_that_we_read_back(printed, tmp_path):
    workload = bs.Workload(
        input_len=bs.LogNormal(2000, cv=0.8),
        output_len=bs.LogNormal(300, cv=1),
        burstiness=0.5,
        prefix_cache_hit=0.5,
    )
    deployment = printed.deployment(workload=workload)
    assert needs_trace(deployment.lowered)
    count = write_trace(tmp_path / "r.jsonl", deployment.lowered, 6.0)
    words = bench(deployment, 6.0)
    assert flag(words, "--num-prompts") == str(count) == "1800"
    assert "--self-timed" in words
    trace = read_trace(tmp_path / "r.jsonl")
    assert len(trace) == count
    assert trace.input_len.mean() == pytest.approx(2000, rel=0.02)
    assert trace.input_len.std() / trace.input_len.mean() == pytest.approx(0.8, rel=0.1)
    gaps = trace.arrivals[1:] - trace.arrivals[:-1]
    assert 1 / gaps.mean() == pytest.approx(6, rel=0.05)
    assert (gaps.std() / gaps.mean()) ** 2 == pytest.approx(2, rel=0.15)
    shared = sum(sum(h < 1 << 20 for h in hashes) for hashes in trace.hash_ids)
    assert shared * BLOCK / trace.input_len.sum() == pytest.approx(0.5, abs=0.02)


def test_shell_words_come_back_as_they_were(printed):
    deployment = printed.deployment("vllm", "1p1d-tp4")
    lines = [line for line in written(deployment, "commands").splitlines() if line[0] != "#"]
    assert shlex.split(lines[0])[3:] == list(started(deployment)[0][1].words)


def test_an_e2el_that_grows_with_the_length_is_not_told_to_the_client_as_a_fixed_one():
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        workload=bs.Workload(input_len=1000, output_len=200),
        slo="ttft:1000 e2el:1000+50",
    )
    lowered = lower(problem)
    words = bench_command(lowered, Strategy.parse("1m-tp1"), "http://h:1", lowered.model.name, 1.0)
    assert not any(word.startswith("e2el:") for word in words)
    assert "ttft:1000" in words


def test_objectives_that_the_client_cannot_count_are_said():
    assert uncounted(None) == uncounted(bs.SLO("ttft:1000 tpot:50")) == ""
    said = uncounted(bs.SLO("ttft:1000 tpot:50 stall:200 itl:100 e2el:1000+50"))
    assert said.startswith("the benchmark counts no stall, itl, e2el that grows with the answer")
    assert "validate --goodput reads stall, itl off its log" in said
    alone = uncounted(bs.SLO("ttft:1000 chat.tpot:50"))
    assert alone == "the benchmark counts no objectives of single classes"


GROUPS = bs.Workload(
    prefixes=bs.PrefixGroups(groups=20, prefix_len=1500), input_len=200, output_len=100
)


def router_words(deployment) -> tuple[str, ...]:
    assert deployment.router is not None
    return deployment.router.words


@pytest.mark.parametrize(
    ("engine", "routing", "policy", "said"),
    [
        ("vllm", "prefix_aware", "kv_aware", ""),
        ("vllm", "prefix_estimated", "cache_aware", ""),
        ("vllm", "prefix_hash", "cache_aware", "no prefix_hash, cache_aware is nearest"),
        ("vllm", "session_affine", "consistent_hash", "one session or user"),
        ("vllm", "reported_kv", "power_of_two", "no reported_kv, power_of_two is nearest"),
        ("sglang", "prefix_aware", "cache_aware", "no prefix_aware, cache_aware is nearest"),
        ("sglang", "session_affine", "manual", "x-smg-routing-key"),
    ],
)
def test_routers_that_go_by_prefixes(printed, engine, routing, policy, said):
    one = printed.deployment(engine, "2m-tp4", workload=GROUPS, routing=routing)
    assert flag(router_words(one), "--policy") == policy
    told = [r for r in one.remarks if "rout" in r or "keeps together" in r]
    assert said in " ".join(told)
    assert bool(told) == bool(said)


def test_a_router_that_knows_the_caches_is_told_where_they_speak(printed):
    one = printed.deployment("vllm", "2m-tp2-dp2", workload=GROUPS, routing="prefix_aware")
    spoken = [
        json.loads(flag(p.words, "--kv-events-config"))["endpoint"].removeprefix("tcp://*:")
        for _, p in started(one)
    ]
    assert spoken == ["5557", "5559"]  # two ranks each
    words = router_words(one)
    assert [words[i + 1] for i, w in enumerate(words) if w == "--kv-event-source"] == [
        "http://127.0.0.1:8000=tcp://127.0.0.1:5557,tcp://127.0.0.1:5558",
        "http://127.0.0.1:8100=tcp://127.0.0.1:5559,tcp://127.0.0.1:5560",
    ]
    assert flag(words, "--kv-event-model") == one.model
    plain = printed.deployment("vllm", "2m-tp4", workload=GROUPS)
    assert "--kv-events-config" not in started(plain)[0][1].words
    assert "--enable-prefix-caching" in started(plain)[0][1].words


def test_host_memory_that_the_plan_counts_on_is_asked_for(printed):
    host = {"gigabytes": 100 * 1.073741824, "bandwidth": 5e10}
    tiers = {"workload": GROUPS, "kv_tiers": [host]}
    words = started(printed.deployment("vllm", **tiers))[0][1].words
    assert flag(words, "--kv-offloading-size") == "100"
    # SGLang's is each GPU's, in 10⁹ bytes: a quarter of 107 GB
    words = started(printed.deployment("sglang", "2m-tp4", **tiers))[0][1].words
    assert flag(words, "--hicache-size") == "27"
    split = printed.deployment("vllm", "1p1d-tp4", **tiers)
    assert all("--kv-offloading-size" not in p.words for _, p in started(split))
    assert any("left out" in r for r in split.remarks)
    store = printed.deployment("vllm", kv_tiers=[host | {"shared": True}], workload=GROUPS)
    assert any("yours to configure" in r for r in store.remarks)


def test_the_benchmark_repeats_the_plans_prefixes(printed):
    one = printed.deployment(workload=GROUPS)
    words = bench_command(one.lowered, one.strategy, one.url, one.model, 2.0)
    assert flag(words, "--dataset-name") == "prefix_repetition"
    assert [flag(words, f"--prefix-repetition-{n}") for n in ("num-prefixes", "prefix-len")] == [
        "20", "1500",
    ]  # fmt: skip
    assert flag(words, "--prefix-repetition-suffix-len") == "200"


@pytest.mark.parametrize(
    "workload",
    [
        bs.Workload(
            prefixes=bs.PrefixGroups(groups=3, prefix_len=1000, questions=2),
            input_len=200,
            output_len=100,
        ),
        bs.Workload(
            conversation=bs.Conversation(turns=4, think_time=30.0, think_fixed=True),
            input_len=200,
            output_len=100,
        ),
    ],
)
def test_prompts_that_the_client_cannot_repeat_are_a_trace(printed, tmp_path, workload):
    one = printed.deployment(workload=workload)
    assert needs_trace(one.lowered)
    path = tmp_path / "requests.jsonl"
    count = write_trace(path, one.lowered, 2.0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == count
    assert [r["timestamp"] for r in lines] == sorted(r["timestamp"] for r in lines)
    shared = 0.0
    seen: set[int] = set()
    for r in lines:
        assert len(r["hash_ids"]) == -(-r["input_length"] // BLOCK)
        shared += len(seen & set(r["hash_ids"]))
        seen |= set(r["hash_ids"])
    share = shared / sum(len(r["hash_ids"]) for r in lines)
    if workload.conversation is None:
        # three groups of 15 full blocks and two questions each, with 4 blocks of their own
        assert len(seen) == 3 * (1000 // BLOCK) + 6 * (19 - 1000 // BLOCK)
        assert share > 0.9
    else:
        # turns of 200, 500, 800 and 1,100 tokens, each of which repeats the blocks of that before
        lengths = sorted({r["input_length"] for r in lines})
        assert lengths == [200, 500, 800, 1100]
        assert share == pytest.approx((4 + 8 + 13) / (4 + 8 + 13 + 18), abs=1e-3)
