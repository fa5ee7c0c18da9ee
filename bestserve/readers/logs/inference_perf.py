"""inference-perf stages (`stage_N_lifecycle_metrics.json`), times in seconds.

Its inter-token latency counts chunks that arrive together as zero gaps and comes out about half
of the truth, so mean TPOT is derived from the mean latencies instead. A `config.yaml` beside
it names model, engine and the prompts that were asked again and again.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._beside import beside, settings_beside
from bestserve.readers.logs._build import built, engine_name
from bestserve.readers.logs._hits import percent
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.logs.llmperf import TPOT_NOTE, derived_tpot
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "inference-perf"

REPEATED = 2
"""Times that each prompt is asked beyond which the first asking no longer matters."""

_STATS = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


def lacking(source: Source) -> str:
    """Return what to name instead of a run's settings."""
    keys = keys_of(source.value) if source.kind == "yaml" else frozenset()
    if keys >= {"api", "data", "load", "server"}:
        return "settings of an inference-perf run, read with its stage_N_lifecycle_metrics.json"
    if "prefix_cache_hit_percent" in keys_of(source.value):
        return "servers' metrics of an inference-perf stage, read with its lifecycle metrics"
    return ""


def sniff(source: Source) -> bool:
    """Whether the report has load summary, successes and failures, with latencies."""
    keys = keys_of(source.value)
    return (
        source.kind in ("json", "yaml")
        and keys >= {"load_summary", "successes", "failures"}
        and "latency" in keys_of(source.value["successes"])
    )


def read(source: Source) -> list[TidyRow]:
    """The one stage of the file."""
    record = Record.of(source.value, source.name, source)
    load, done = record.child("load_summary"), record.child("successes")
    latency, throughput = done.child("latency"), done.child("throughput")
    figures: dict[str, float | None] = {}
    for metric, theirs in (("ttft", "time_to_first_token"), ("e2el", "request_latency")):
        stats = latency.child(theirs)
        for stat, ours in _STATS.items():
            figures[f"{metric}_{ours}_ms"] = stats.number(stat, MS)
    output = done.child("output_len").number("mean")
    figures["tpot_mean_ms"] = derived_tpot(figures["e2el_mean_ms"], figures["ttft_mean_ms"], output)
    asked = load.positive("requested_rate")
    achieved = load.number("achieved_rate")
    short = asked is not None and achieved is not None and achieved < 0.95 * asked
    completed = done.count("count")
    failed = record.child("failures").count("count")
    settings, said = _settings(source, load.count("count"))
    hit = _hit(source)
    return [
        built(
            record.where,
            NAME,
            figures,
            fields={
                "source": "inference-perf",
                "request_rate": asked,
                "achieved_rate": achieved,
                "send_duration": load.number("send_duration"),
                "num_prompts": load.count("count"),
                "completed": completed,
                "failed": failed,
                "req_throughput": throughput.number("requests_per_sec"),
                "out_tok_throughput": throughput.number("output_tokens_per_sec"),
                "input_len_mean": done.child("prompt_len").positive("mean"),
                "output_len_mean": output or None,
                "prefix_hit": hit,
                **settings,
            },
            notes=(
                *said,
                None if hit is None else f"prefix-cache hits of the servers: {hit:.1%}",
                TPOT_NOTE if figures["tpot_mean_ms"] is not None else None,
                "WARNING the client fell short of the rate asked" if short else None,
                "several stages together: not one load" if asked is None else None,
            ),
        )
    ]


def _settings(source: Source, sent: int | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what the run's configuration beside the report says, and notes."""
    config = settings_beside(source, "config.yaml", "config.yml")
    server, load, data = config.child("server"), config.child("load"), config.child("data")
    out: dict[str, Any] = {
        "model": server.text("model_name"),
        "engine": engine_name(server.text("type")),
        "ignore_eos": server.flag("ignore_eos"),
        "arrivals": {"constant": "constant", "poisson": "poisson"}.get(load.text("type") or ""),
        "dataset_or_lengths": data.text("type"),
    }
    shared = data.child("shared_prefix")
    groups, each = shared.size("num_groups"), shared.size("num_prompts_per_group")
    prefix = shared.positive("system_prompt_len")
    if not groups or not prefix:
        return out, ()
    question = shared.number("question_len") or 0.0
    out |= {"prefix_caching": True, "input_len_asked": prefix + question}
    out |= {"output_len_asked": shared.positive("output_len")}
    said = ["prefix caching taken as on, the engine's default"]
    if each and sent and sent > REPEATED * groups * each:
        # every prompt is soon asked again: each is a prefix of its own
        said.append(f"{groups * each} different prompts, asked {sent} times")
        return out | {"prefix_groups": groups * each, "prefix_len": prefix + question}, tuple(said)
    return out | {"prefix_groups": groups, "prefix_prompts": each, "prefix_len": prefix}, tuple(
        said
    )


def _hit(source: Source) -> float | None:
    """Return the hit share of the stage's report of the servers' metrics beside it [1].

    It prints 0 where nobody asked the servers, so that 0 says nothing.
    """
    found = beside(source, source.path.name.replace("_lifecycle_", "_prometheus_"))
    if found is None or "prefix_cache_hit_percent" not in keys_of(found.value):
        return None
    record = Record.of(found.value, found.name, found)
    return percent(record, "prefix_cache_hit_percent", "mean") or None
