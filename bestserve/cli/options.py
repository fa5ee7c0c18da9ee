"""Flags that state a problem, shared by all commands that take one; vLLM's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from bestserve.cli.flags import Many, Whole, Wholes
from bestserve.cli.talk import talk, warn_of_foreign_calibration
from bestserve.errors import InputError
from bestserve.readers.mappings import read_mapping
from bestserve.specs.model import Model
from bestserve.specs.prefixes import WORDS, in_own_words
from bestserve.specs.problem import LAYOUTS, PURE, Problem
from bestserve.specs.slo import SLO, checked_table
from bestserve.specs.speculation import with_acceptance
from bestserve.specs.workload import Workload

DEFAULT_LENGTHS = {"input_len": "lognormal:1000,1", "output_len": "lognormal:250,1"}
DEFAULT_GOODPUT = "ttft:1000 tpot:50"
"""A chat workload and interactive objectives, used (and said) where a command line states none."""


def alias(*names: str) -> Any:
    """Return the parameter that is understood by several names."""
    return Parameter(name=[f"--{name}" for name in names])


def clients(field: str) -> list[str]:
    """Return what benchmark clients call a field of a workload's prefixes or lengths."""
    known = ("random_", "prefix_repetition_", "gsp_")
    return [
        word.replace("_", "-")
        for word, (_, meant) in WORDS.items()
        if meant == field and word.startswith(known)
    ]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ProblemOptions:
    """What to serve, on what, for whom; flags override the problem file.

    Parameters
    ----------
    problem
        file (TOML, YAML or JSON) with the fields of bestserve.Problem
    model
        bundled name (see `bestserve catalog models`) or path of a config.json
    like
        read a config.json of unknown type as this type (llama, mixtral, …), if its parameters agree
    parameters
        how many parameters the publisher counts, with --like; default: by the index beside the file
    hardware
        bundled name (see `bestserve catalog hardware`) or path of a TOML record
    gpus
        GPUs that may be used
    gpus_per_node
        GPUs that share the fast link; default: the hardware record's
    engine
        vllm, sglang, tensorrt-llm, … or path of an engine record
    input_len
        tokens of a prompt: 512, lognormal:2000,0.8 (mean, cv), uniform:100,200, geometric:300
    output_len
        tokens of an answer, written likewise
    burstiness
        shape of the gamma-distributed gaps between requests; 1 is Poisson
    prefix_cache_hit
        share of the prompt tokens found in the prefix cache, where it is known
    images_per_request
        images in each prompt, beside --input-len
    image_size
        their width and height in pixels; default: 1024x1024
    prefix_groups
        different prefixes that prompts begin with; --input-len is what a request adds
    prefix_len
        their tokens, written as --input-len
    prefix_questions
        different questions of a group, asked again and again; default: no two are alike
    prefix_skew
        popularity of the n-th group goes as n^-skew; default 0, all alike
    turns
        requests of a conversation, each of which repeats all before it; written as --input-len
    think_time
        mean seconds from an answer to the next request of a conversation, or an agent's tool time
    first_input_len
        what a conversation's first request brings, e.g. a document; default: as the others
    trace
        file of recorded requests, replayed with its lengths and arrival times; or a folder of
        ServeGen clients, of which the busiest hour is generated
    trace_columns
        which column holds what: arrival=timestamp input_len=prompt_tokens output_len=…
    trace_unit
        of the trace's arrivals, with --trace-columns: s, ms, us, ns or date
    max_concurrency
        closed loop: clients that each wait for their answer
    num_prompts
        prompts of a closed-loop run; default 10 per client
    goodput
        objectives in ms, as vLLM: ttft:500 tpot:50 e2el:30s, also ttft:500@p99; on tokens
        deadline:1000+50, stall:200, pace:50, fluidity:0.9, itl:100@p99; of one class chat.tpot:50
    percentile
        share of requests that must meet each objective [%]
    joint
        count requests that meet all objectives together
    attainment
        share of requests that must, with --joint
    precision
        weight format: bf16, fp8, fp8_block, int8, nvfp4, mxfp4, int4; default: the model's
    kv_cache_dtype
        auto (the checkpoint's, else 16 bit), bf16, fp8 or nvfp4
    max_num_seqs
        running sequences at most; default: the engine's
    max_num_batched_tokens
        tokens per step at most; default: several are tried
    gpu_memory_utilization
        share of GPU memory the engine may use
    enable_chunked_prefill
        mix prompt chunks with decodes; default: the engine's policy
    enable_prefix_caching
        keep blocks of earlier prompts; default: yes, where the workload says what is shared
    kv_offloading_size
        host memory for KV blocks, of each instance [GiB]
    kv_offloading_bandwidth
        at which a GPU reads them back [B/s]
    kv_peer_bandwidth
        at which a GPU fetches what another instance's cache holds; default: it is not fetched [B/s]
    speculative_config
        what drafts tokens, as vLLM: '{"method": "eagle3", "num_speculative_tokens": 3}'
    acceptance
        chance that a draft is accepted if all before it are: one number or one per position, or a
        data set's name; default: assumed, by method
    routing
        random, round_robin, least_outstanding, power_of_two, least_kv, reported_kv, least_ttft; by
        what prompts share: session_affine, prefix_hash, prefix_aware, prefix_estimated
    router_lag
        how late a prefix-aware router learns what the engines hold [s]
    tensor_parallel_size
        sizes to try; default: powers of two within a node
    pipeline_parallel_size
        sizes to try
    tp_across_nodes
        allow tensor parallelism over the network
    layout
        collocated, disaggregated, or both (the default); hybrid, or all three
    price_per_hour
        of one GPU [USD/h], for goodput per dollar; default: the hardware record's, if any
    network_bandwidth
        one way, per GPU, across nodes [B/s]
    calibration
        record written by `bestserve calibrate` or `bestserve measure`
    """

    problem: str | None = None
    model: str | None = None
    like: str | None = None
    parameters: float | None = None
    hardware: str | None = None
    gpus: Annotated[int | None, Whole] = None
    gpus_per_node: Annotated[int | None, Whole] = None
    engine: str | None = None
    input_len: Annotated[str | None, alias("input-len", "isl", *clients("input_len"))] = None
    output_len: Annotated[str | None, alias("output-len", "osl", *clients("output_len"))] = None
    burstiness: float | None = None
    prefix_cache_hit: float | None = None
    images_per_request: Annotated[int | None, Whole] = None
    image_size: str | None = None
    prefix_groups: Annotated[int | None, alias("prefix-groups", *clients("groups"))] = None
    prefix_len: Annotated[str | None, alias("prefix-len", *clients("prefix_len"))] = None
    prefix_questions: Annotated[int | None, alias("prefix-questions", *clients("questions"))] = None
    prefix_skew: float | None = None
    turns: str | None = None
    think_time: Annotated[float | None, alias("think-time", "tool-time")] = None
    first_input_len: str | None = None
    trace: str | None = None
    trace_columns: Annotated[list[str] | None, Many] = None
    trace_unit: Literal["s", "ms", "us", "ns", "date"] | None = None
    max_concurrency: Annotated[int | None, Whole] = None
    num_prompts: Annotated[int | None, Whole] = None
    goodput: Annotated[list[str] | None, Many] = None
    percentile: float | None = None
    joint: bool | None = None
    attainment: float | None = None
    precision: str | None = None
    kv_cache_dtype: str | None = None
    max_num_seqs: Annotated[int | None, Whole] = None
    max_num_batched_tokens: Annotated[int | None, Whole] = None
    gpu_memory_utilization: float | None = None
    enable_chunked_prefill: bool | None = None
    enable_prefix_caching: bool | None = None
    kv_offloading_size: float | None = None
    kv_offloading_bandwidth: float | None = None
    kv_peer_bandwidth: float | None = None
    speculative_config: str | None = None
    acceptance: Annotated[list[str] | None, Many] = None
    routing: str | None = None
    router_lag: float | None = None
    tensor_parallel_size: Annotated[list[int] | None, Wholes] = None
    pipeline_parallel_size: Annotated[list[int] | None, Wholes] = None
    tp_across_nodes: bool | None = None
    layout: Annotated[list[str] | None, Many] = None
    price_per_hour: float | None = None
    network_bandwidth: float | None = None
    calibration: str | None = None

    def build(self, strategy: str | None = None) -> Problem:
        """Return the problem that file and flags state. Raises InputError or DataError.

        Says on stderr which defaults it took, and what a calibration record was not fitted to.
        strategy : the one asked for, whose tp the record may not know
        """
        stated = read_mapping(self.problem) if self.problem else {}
        problem, said = self.on(stated)
        for default in said:
            talk(default)
        warn_of_foreign_calibration(problem, strategy)
        return problem

    def on(self, stated: Mapping[str, Any]) -> tuple[Problem, list[str]]:
        """Return the problem that a file's fields and these flags state, and the defaults taken."""
        values = dict(stated)
        flags = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {k: v for k, v in flags.items() if v is not None and k != "problem"}
        requests = {**Workload.model_fields, **WORDS}
        workload = {k: given.pop(k) for k in [*given] if k in requests}
        slo = {k: given.pop(k) for k in [*given] if k in SLO.model_fields}
        goodput = given.pop("goodput", None)
        size, bandwidth = (given.pop(f"kv_offloading_{k}", None) for k in ("size", "bandwidth"))
        peers = given.pop("kv_peer_bandwidth", None)
        if size is None and bandwidth is not None:
            raise InputError("kv_offloading_bandwidth goes with --kv-offloading-size")
        if size is not None or peers is not None:
            host = [] if size is None else [_host(size, bandwidth)]
            given["kv_tiers"] = [*host, *_peers(peers)]
        for flag, name in (
            ("tensor_parallel_size", "tensor_parallel_sizes"),
            ("pipeline_parallel_size", "pipeline_parallel_sizes"),
            ("layout", "layouts"),
        ):
            if flag in given:
                given[name] = tuple(given.pop(flag))
        for word, layouts in (("both", PURE), ("all", LAYOUTS)):
            if given.get("layouts") == (word,):
                given["layouts"] = layouts
        acceptance = given.pop("acceptance", None)
        if acceptance is not None:
            drafted = given.get("speculative_config", values.get("speculative_config"))
            given["speculative_config"] = with_acceptance(drafted, acceptance)
        like, parameters = given.pop("like", None), given.pop("parameters", None)
        if like is not None:
            given["model"] = _alike(given.get("model", values.get("model")), like, parameters)
        values.update(given)
        said: list[str] = []
        values["workload"] = _workload(values.get("workload"), workload, said)
        values["slo"] = _slo(values.get("slo"), goodput, slo, said)
        return Problem(**values), said


def _alike(model: Any, like: str, parameters: float | None) -> Model:
    from bestserve.catalog.like import load_model_like

    if not isinstance(model, str):
        raise InputError("--like goes with --model and the path of a config.json")
    found = load_model_like(model, like, parameters)
    talk(found.notes[0])
    return found


def _host(size: float, bandwidth: float | None) -> dict[str, float]:
    if bandwidth is None:
        raise InputError(
            "--kv-offloading-size needs --kv-offloading-bandwidth, bytes per second that a GPU "
            "reads from host memory: the rate of a large pinned copy, e.g. 50e9"
        )
    return {"gigabytes": size * 1.073741824, "bandwidth": bandwidth}


def _peers(bandwidth: float | None) -> list[dict[str, Any]]:
    """Return the other instances' caches as a tier, if they are read from [B/s]."""
    return [] if bandwidth is None else [{"name": "peers", "peers": True, "bandwidth": bandwidth}]


SOURCES = ({"input_len", "output_len"}, {"classes"}, {"trace", "trace_columns", "trace_unit"})
"""Ways to state lengths; flags of one displace what a problem file says by another."""


def _columns(texts: list[str]) -> dict[str, str]:
    """Read "arrival=timestamp" "input_len=prompt_tokens" …"""
    pairs = [text.partition("=") for text in texts]
    if not all(column for _, _, column in pairs):
        raise InputError(
            "trace_columns are written arrival=timestamp input_len=prompt_tokens output_len=…"
        )
    return {name.strip().replace("-", "_"): column for name, _, column in pairs}


def _workload(stated: Any, flags: dict[str, Any], said: list[str]) -> Workload:
    flags = dict(flags)
    if "trace_columns" in flags:
        flags["trace_columns"] = _columns(flags["trace_columns"])
    flags = in_own_words(flags)
    stated = in_own_words(_mapping(stated, "workload"))
    for part in ("prefixes", "conversation"):
        if part in flags:
            flags[part] = {**_mapping(stated.get(part), part), **flags[part]}
    given = [source for source in SOURCES if source & flags.keys()]
    displaced = {f for source in SOURCES if given and source not in given for f in source}
    kept = {k: v for k, v in stated.items() if k not in displaced}
    merged = {**kept, **flags}
    if not {"input_len", "output_len", "trace", "classes"} & merged.keys():
        said.append(f"no lengths given: taking {_flags(DEFAULT_LENGTHS)}")
        merged.update(DEFAULT_LENGTHS)
    return Workload(**merged)


def _slo(stated: Any, goodput: list[str] | None, flags: dict[str, Any], said: list[str]) -> SLO:
    base = {} if isinstance(stated, str) else checked_table(_mapping(stated, "slo"))
    if goodput is not None:
        slo = SLO(" ".join(goodput), **flags)
    elif isinstance(stated, str):
        slo = SLO(stated, **flags)
    elif base:
        slo = SLO(**{**base, **flags})
    else:
        said.append(f"no objectives given: taking --goodput {DEFAULT_GOODPUT}")
        slo = SLO(DEFAULT_GOODPUT, **flags)
    if "attainment" in flags and not slo.joint:
        raise InputError("attainment goes with joint objectives; add --joint, or give --percentile")
    if "percentile" in flags and slo.joint:
        raise InputError("percentile goes with separate objectives; with --joint give --attainment")
    return slo


def _flags(values: dict[str, str]) -> str:
    return " ".join(f"--{k.replace('_', '-')} {v}" for k, v in values.items())


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{name} in the problem file must be a table of fields")
    return value
