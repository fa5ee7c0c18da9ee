"""llm-d benchmark report (YAML or JSON), versions 0.1, 0.2 and 0.2.1.

The one format that names accelerator, parallelism and the prefill and decode roles. Its figures
are those of the client named in it: only vLLM's own client divides by the output tokens after the
first, so with any other one mean TPOT is derived from the mean latencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bestserve.errors import DataError, shown
from bestserve.readers.logs._build import arrivals_of, built, engine_name
from bestserve.readers.logs._hits import in_units
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.logs._settings import stated_settings
from bestserve.readers.logs.llmperf import TPOT_NOTE, derived_tpot
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "llm-d-report"
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SHARES = ("p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99")
_OURS = ("vllm-benchmark", "vllm bench serve", "vllm")
_ENGINES = ("vllm", "sglang", "tensorrt-llm", "trtllm")


def sniff(source: Source) -> bool:
    """Whether the report has a version, a scenario and metrics or request performance."""
    keys = keys_of(source.value)
    if source.kind not in ("yaml", "json") or not keys >= {"version", "scenario"}:
        return False
    return "metrics" in keys or "request_performance" in keys_of(source.value.get("results"))


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    record = Record.of(source.value, source.name, source)
    return [_first(record) if "metrics" in record else _second(record)]


def _latencies(latency: Record, output: float | None, tool: str | None) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    metrics = {"ttft": "time_to_first_token", "e2el": "request_latency"}
    if tool in _OURS:
        metrics["tpot"] = "time_per_output_token"
    for metric, theirs in metrics.items():
        stats = latency.child(theirs)
        if not stats.data:
            continue
        scale = _seconds(stats) * MS
        figures[f"{metric}_mean_ms"] = stats.number("mean", scale)
        figures[f"{metric}_std_ms"] = stats.number("stddev", scale)
        for share in _SHARES:
            figures[f"{metric}_{share}_ms"] = stats.number(share, scale)
    if tool not in _OURS:
        figures["tpot_mean_ms"] = derived_tpot(
            figures.get("e2el_mean_ms"), figures.get("ttft_mean_ms"), output
        )
    return figures


def _seconds(stats: Record) -> float:
    unit = (stats.text("units") or "").removesuffix("/token")
    if unit not in _UNITS:
        raise DataError(f"{stats.where}: units is {shown(unit)}: expected a time unit")
    return _UNITS[unit]


def _requests(requests: Record) -> dict[str, Any]:
    total, failed = requests.count("total"), requests.count("failures")
    cut = requests.count("incomplete") or 0
    out: dict[str, Any] = {"num_prompts": total, "failed": failed}
    if total is not None and failed is not None:
        out["completed"] = max(total - failed - cut, 0)
    for side, theirs in (("input_len", "input_length"), ("output_len", "output_length")):
        stats = requests.child(theirs)
        out |= {f"{side}_mean": stats.positive("mean"), f"{side}_std": stats.number("stddev")}
    return out


def _settings(args: Record) -> dict[str, Any]:
    """Settings among a server's command-line arguments."""
    named = {k.lstrip("-").replace("-", "_"): v for k, v in args.data.items() if isinstance(k, str)}
    return stated_settings(Record(named, args.where, args.source))


def _first(record: Record) -> TidyRow:
    """Version 0.1: parallel lists of host types, accelerators and engines."""
    scenario, metrics = record.child("scenario"), record.child("metrics")
    roles = scenario.child("host").data.get("type")
    accelerators = list(scenario.child("host").children("accelerator"))
    engines = list(scenario.child("platform").children("engine"))
    if not isinstance(roles, list) or len(roles) != len(accelerators):
        raise DataError(f"{record.where}: scenario.host: one type per accelerator expected")
    parts = [
        {
            "role": role if isinstance(role, str) else "",
            "gpu": accelerator.text("model"),
            "count": accelerator.size("count"),
            "replicas": 1,
            **_parallel(accelerator),
        }
        for role, accelerator in zip(roles, accelerators, strict=True)
    ]
    tool = scenario.child("load").text("name")
    requests = _requests(metrics.child("requests"))
    throughput = metrics.child("throughput")
    fields = _stack(parts)
    if engines:
        fields = _merged(_settings(engines[0].child("args")), fields)
        fields["engine"] = engine_name(engines[0].text("name"))
        fields["engine_version"] = engines[0].text("version")
    return built(
        record.where,
        NAME,
        _latencies(metrics.child("latency"), requests["output_len_mean"], tool),
        fields={
            **fields,
            **requests,
            "source": f"llm-d benchmark report ({tool})",
            "model": scenario.child("model").text("name"),
            "precision": scenario.child("model").text("quantization"),
            "duration": metrics.child("time").number("duration"),
            "req_throughput": throughput.number("requests_per_sec"),
            "out_tok_throughput": throughput.number("output_tokens_per_sec"),
        },
        notes=_notes(tool),
    )


def _second(record: Record) -> TidyRow:
    """Versions 0.2 and 0.2.1: a stack of components with roles and replicas."""
    scenario = record.child("scenario")
    load = scenario.child("load", "standardized")
    results = record.child("results", "request_performance", "aggregate")
    requests = _requests(results.child("requests"))
    throughput = results.child("throughput")
    tool = load.text("tool")
    rate = load.positive("rate_qps", inf=True)
    concurrency = _finite(load)
    return built(
        record.where,
        NAME,
        _latencies(results.child("latency"), requests["output_len_mean"], tool),
        fields={
            # the engines' default, unless their arguments say otherwise
            "prefix_caching": True if load.child("prefix").size("num_groups") else None,
            **_components(scenario),
            **_lengths(load),
            **requests,
            "source": f"llm-d benchmark report ({tool})",
            "date": record.child("run", "time").text("start"),
            "request_rate": float("inf") if rate is None and concurrency else rate,
            "concurrency": concurrency,
            "arrivals": arrivals_of(rate, concurrency, None),
            "prefix_hit": _hit(record),
            "req_throughput": throughput.child("request_rate").number("mean"),
            "out_tok_throughput": throughput.child("output_token_rate").number("mean"),
        },
        notes=_notes(tool),
    )


def _hit(record: Record) -> float | None:
    """Return the mean hit share of the components that state one [1].

    Replicas' own lines are averaged alike: how many prompts each served is not in the report.
    """
    shares = [
        share
        for component in record.child("results", "observability").children("components")
        if (share := in_units(component.child("aggregate", "cache_hit_rate"))) is not None
    ]
    return sum(shares) / len(shares) if shares else None


def _notes(tool: str | None) -> tuple[str | None, ...]:
    return (f"client {tool}" if tool else None, None if tool in _OURS else TPOT_NOTE)


def _finite(load: Record) -> int | None:
    value = load.positive("concurrency", inf=True)
    return None if value is None or value == float("inf") else load.size("concurrency")


def _lengths(load: Record) -> dict[str, Any]:
    """Asked lengths and shared prefixes."""
    out: dict[str, Any] = {}
    for side, theirs in (("input_len", "input_seq_len"), ("output_len", "output_seq_len")):
        law = load.child(theirs)
        out[f"{side}_asked"] = law.positive("value")
        if law.text("distribution") == "fixed" and law.positive("value"):
            out[f"{side}_range"] = (law.positive("value"), law.positive("value"))
    prefix = load.child("prefix")
    out["prefix_len"] = prefix.child("prefix_len").number("value")
    out["prefix_groups"] = prefix.size("num_groups")
    out["prefix_prompts"] = prefix.size("num_users_per_group")
    return out


def _parallel(accelerator: Record) -> dict[str, int | None]:
    law = accelerator.child("parallelism")
    return {name: law.size(name) for name in ("tp", "pp", "dp", "ep")}


def _components(scenario: Record) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    out: dict[str, Any] = {}
    for component in scenario.children("stack"):
        standard = component.child("standardized")
        if standard.text("kind") != "inference_engine":
            continue
        accelerator = standard.child("accelerator")
        parts.append(
            {
                "role": standard.text("role") or "",
                "gpu": accelerator.text("model"),
                "count": accelerator.size("count"),
                "replicas": standard.size("replicas") or 1,
                **_parallel(accelerator),
            }
        )
        tool = standard.text("tool")
        args = component.child("native").data.get("args")
        settings = (
            _settings(Record(args, component.where, component.source))
            if isinstance(args, Mapping)
            else {}
        )
        out = {
            **settings,
            **out,
            "model": standard.child("model").text("name"),
            "engine": engine_name(tool) if tool and tool.lower() in _ENGINES else None,
            "engine_version": standard.text("tool_version"),
        }
    return _merged(out, _stack(parts))


def _merged(settings: dict[str, Any], stack: dict[str, Any]) -> dict[str, Any]:
    """Engine arguments below what the report states; one `tp` cannot stand for two halves."""
    if stack.get("disaggregated"):
        settings = {k: v for k, v in settings.items() if k not in ("tp", "pp", "ep")}
    return {**settings, **stack}


def _halves(parts: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for half in ("prefill", "decode"):
        yield half, [part for part in parts if part["role"] == half]


def _stack(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Parallelism of the engines; a stack of decode engines alone serves both phases."""
    if not parts:
        return {}
    gpus = {part["gpu"] for part in parts}
    out: dict[str, Any] = {"gpu": parts[0]["gpu"] if len(gpus) == 1 else None}
    if all(part["count"] for part in parts):
        out["num_gpus"] = sum(part["count"] * part["replicas"] for part in parts)
    halves = dict(_halves(parts))
    split = bool(halves["prefill"]) and bool(halves["decode"])
    out["disaggregated"] = split
    groups = halves.items() if split else [("", parts)]
    for half, members in groups:
        prefix = f"{half}_" if half else ""
        for name in ("tp", "pp", "ep"):
            values = {part[name] for part in members}
            out[f"{prefix}{name}"] = values.pop() if len(values) == 1 else None
        groups_of = {part["dp"] or 1 for part in members}
        wide = len(groups_of) == 1 and all((part["ep"] or 1) > 1 for part in members)
        if wide and groups_of != {1}:  # data-parallel attention around shared experts
            out[f"{prefix}attention_dp"] = groups_of.pop()
            copies = sum(part["replicas"] for part in members)
        else:
            copies = sum(part["replicas"] * (part["dp"] or 1) for part in members)
        out[f"{prefix}workers" if half else "replicas"] = copies
    return out
