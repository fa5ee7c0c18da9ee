"""inference-perf stages (`stage_N_lifecycle_metrics.json`), times in seconds.

Its inter-token latency counts chunks that arrive together as zero gaps and comes out about half
of the truth, so mean TPOT is derived from the mean latencies instead.
"""

from __future__ import annotations

from bestserve.readers.logs._build import built
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.logs.llmperf import TPOT_NOTE, derived_tpot
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "inference-perf"
_STATS = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


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
            },
            notes=(
                TPOT_NOTE if figures["tpot_mean_ms"] is not None else None,
                "WARNING the client fell short of the rate asked" if short else None,
                "several stages together: not one load" if asked is None else None,
            ),
        )
    ]
