"""A server's metrics under our names: text, Prometheus answers, two looks, one look."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import DataError, InputError
from bestserve.readers.metrics import scrape
from bestserve.readers.metrics.histogram import Histogram
from bestserve.readers.metrics.live import live_metrics
from bestserve.readers.metrics.scrape import Scrape, metrics_url

HERE = Path(__file__).parent

pytest.importorskip("prometheus_client", reason="the extra `watch` reads the text format")

EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, math.inf)


def buckets(name: str, values, edges=EDGES, labels: str = "") -> list[str]:
    values = np.asarray(values, dtype=float)
    lines = []
    for edge in edges:
        le = "+Inf" if math.isinf(edge) else f"{edge}"
        lines.append(f'{name}_bucket{{{labels}le="{le}"}} {(values <= edge).sum()}')
    total = f"{{{labels.rstrip(',')}}}" if labels else ""
    return [*lines, f"{name}_count{total} {len(values)}", f"{name}_sum{total} {values.sum()}"]


SECONDS = (0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf)


def vllm(finished: int, running: int = 4, waiting: int = 0, usage: float = 0.3) -> str:
    """Return what a vLLM says after so many requests: 1,000 tokens in, 200 out, 80 and 20 ms."""
    label = 'engine="0",model_name="org/dense-8b",'
    plain = label.rstrip(",")
    rng = np.random.default_rng(1)
    prompts = rng.lognormal(math.log(1000) - 0.125, 0.5, 5000)[:finished]
    lines = [
        f"vllm:num_requests_running{{{plain}}} {running}",
        f"vllm:num_requests_waiting{{{plain}}} {waiting}",
        f"vllm:kv_cache_usage_perc{{{plain}}} {usage}",
        f'vllm:request_success_total{{{label}finished_reason="length"}} {finished}',
        f'vllm:request_success_total{{{label}finished_reason="stop"}} 0',
        f"vllm:prefix_cache_queries_total{{{plain}}} {finished * 1000}",
        f"vllm:prefix_cache_hits_total{{{plain}}} {finished * 250}",
        f"vllm:num_preemptions_total{{{plain}}} {finished // 100}",
        f"vllm:spec_decode_num_drafts_total{{{plain}}} {finished * 100}",
        f"vllm:spec_decode_num_accepted_tokens_total{{{plain}}} {finished * 150}",
        *buckets("vllm:request_prompt_tokens", prompts, labels=label),
        *buckets("vllm:request_generation_tokens", [200] * finished, labels=label),
        *buckets("vllm:time_to_first_token_seconds", [0.08] * finished, SECONDS, label),
        *buckets("vllm:request_time_per_output_token_seconds", [0.02] * finished, SECONDS, label),
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def two_looks(tmp_path):
    for name, finished in (("a", 1000), ("b", 1300)):
        (tmp_path / name).write_text(vllm(finished, running=4 if name == "a" else 10))
    return tmp_path / "a", tmp_path / "b"


def test_two_looks_give_what_happened_between(two_looks):
    live = bs.read_metrics(*two_looks, window=60)
    assert (live.server, live.model) == ("vLLM", "org/dense-8b")
    assert live.finished == 300
    assert live.request_rate == pytest.approx((300 + 6) / 60)
    assert live.input_len.count == 300
    assert live.input_len.mean == pytest.approx(1000, rel=0.1)
    assert live.input_len.cv() == pytest.approx(0.53, abs=0.1)
    assert (live.output_len.mean, live.output_len.cv()) == (200, 0)
    assert live.ttft.mean == pytest.approx(0.08)
    assert 0.05 < live.ttft.percentile(0.9) < 0.1
    assert live.prefix_cache_hit == pytest.approx(0.25)
    assert live.preemptions == pytest.approx(3 / 60)
    assert live.acceptance == pytest.approx(2.5)
    assert (live.running, live.kv_usage) == (7, pytest.approx(0.3))


def test_one_look_says_that_it_knows_no_rate(tmp_path):
    (tmp_path / "a").write_text(vllm(500))
    live = bs.read_metrics(tmp_path / "a")
    assert live.request_rate is None
    assert live.ttft.mean == pytest.approx(0.08)
    assert "no rates" in live.notes[0]
    assert bs.read_metrics(tmp_path / "a", window=100).request_rate == pytest.approx(5)


def test_a_counter_that_fell_was_started_again(two_looks):
    live = bs.read_metrics(two_looks[1], two_looks[0], window=60)
    assert live.finished == 1000


def test_a_query_range_is_a_series_of_looks(tmp_path):
    rng = np.random.default_rng(3)
    arrivals = rng.poisson(50, 60)
    total = np.cumsum(arrivals)
    result = [
        {
            "metric": {"__name__": "vllm:request_success_total", "model_name": "m"},
            "values": [[15 * i, str(v)] for i, v in enumerate([0, *total])],
        },
        {
            "metric": {"__name__": "vllm:num_requests_running", "model_name": "m"},
            "values": [[15 * i, "8"] for i in range(61)],
        },
    ]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    (tmp_path / "range.json").write_text(json.dumps(answer))
    live = bs.read_metrics(tmp_path / "range.json")
    assert live.seconds == 900
    assert live.request_rate == pytest.approx(total[-1] / 900)
    assert 0.6 < live.arrival_scv < 1.6
    bursty = [
        {**result[0], "values": [[15 * i, str(150 * (i // 3))] for i in range(61)]},
        result[1],
    ]
    (tmp_path / "bursts.json").write_text(json.dumps({**answer, "data": {"result": bursty}}))
    assert bs.read_metrics(tmp_path / "bursts.json").arrival_scv > 30


NAMES = {
    "SGLang": ("sglang:num_running_reqs 3", "sglang:num_queue_reqs 2", "sglang:token_usage 0.4",
               "sglang:num_requests_total 50", "sglang:cache_hit_rate 0.2"),
    "TensorRT-LLM": ("trtllm_num_requests_running 3", "trtllm_num_requests_waiting 2",
                     "trtllm_kv_cache_utilization 0.4", "trtllm_request_success_total 50",
                     "trtllm_kv_cache_hit_rate 0.2"),
}  # fmt: skip


@pytest.mark.parametrize("server", NAMES)
def test_other_engines_under_the_same_names(tmp_path, server):
    (tmp_path / "a").write_text("\n".join(NAMES[server]) + "\n")
    live = bs.read_metrics(tmp_path / "a", window=10)
    assert live.server == server
    assert (live.running, live.waiting, live.kv_usage) == (3, 2, 0.4)
    assert (live.request_rate, live.prefix_cache_hit) == (5, 0.2)


def test_dynamos_frontend_comes_before_the_engines_behind_it(tmp_path):
    lines = [
        "dynamo_frontend_inflight_requests 6",
        "dynamo_frontend_queued_requests 1",
        "dynamo_frontend_requests_total 80",
        "vllm:num_requests_running 3",
        *buckets("dynamo_frontend_input_sequence_tokens", [500.0] * 80),
        *buckets("dynamo_frontend_cached_tokens", [100.0] * 80),
    ]
    (tmp_path / "a").write_text("\n".join(lines) + "\n")
    live = bs.read_metrics(tmp_path / "a", window=10)
    assert (live.server, live.running, live.waiting) == ("Dynamo", 6, 1)
    assert live.prefix_cache_hit == pytest.approx(0.2)


def test_kserves_prefix_is_vllms(tmp_path):
    (tmp_path / "a").write_text(vllm(100).replace("vllm:", "kserve_vllm:"))
    live = bs.read_metrics(tmp_path / "a", window=10)
    assert (live.server, live.finished) == ("vLLM", 100)
    assert live.ttft.mean == pytest.approx(0.08)


def test_a_real_vllm_says_what_its_client_measured():
    """vLLM 0.32 on a busy CPU before and after a run of its own client, whose figures these are."""
    dumps = (HERE / "dumps" / f"vllm_0.32_{when}.txt" for when in "ab")
    live = bs.read_metrics(*dumps, window=129.14)
    assert (live.server, live.model, live.finished) == ("vLLM", "tiny", 90)
    assert live.request_rate == pytest.approx(0.70, abs=0.02)
    assert live.input_len.mean == pytest.approx(17812 / 90)
    assert live.ttft.mean == pytest.approx(10.518, rel=0.01)
    assert live.tpot.mean == pytest.approx(0.96958, rel=0.001)
    # lengths were uniform within ± 50 % of 200 and 40
    assert live.input_len.cv() == pytest.approx(0.289, abs=0.04)
    assert live.output_len.cv() == pytest.approx(0.289, abs=0.04)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("# nothing\n", "no metric"),
        ("node_cpu_seconds_total 5\n", "no metrics of"),
        ("<html>no</html>", "text format"),
        ('{"status": "error", "error": "bad query"}', "bad query"),
        ('{"status": "success", "data": {"result": []}}', "without any series"),
        ('{"status": "success", "data": {"result": [{"metric": {}, "value": [0, "1"]}]}}', "name"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_what_is_no_servers_metrics_is_one_line(tmp_path, content, word):
    (tmp_path / "a").write_text(content)
    with pytest.raises(DataError, match=word) as caught:
        bs.read_metrics(tmp_path / "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("ftp://host/metrics", "http://"),
        ("file:///etc/passwd", "http://"),
        ("http://user:secret@host/metrics", "password"),
        ("http://host:99999/", "address"),
    ],
)
def test_only_plain_http_is_asked(address, word):
    with pytest.raises(InputError, match=word) as caught:
        bs.read_metrics(address)
    assert "secret" not in str(caught.value)


def test_the_path_of_metrics_may_be_left_out():
    assert metrics_url("http://host:8000") == "http://host:8000/metrics"
    assert metrics_url("http://host:8000/a/metrics") == "http://host:8000/a/metrics"


@pytest.fixture
def server():
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{port}/metrics")
                self.end_headers()
                return
            body = vllm(100 * len(asked)).encode()
            if self.path == "/endless":
                body = b"x" * 1_000_000
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        port = http.server_address[1]
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{port}", asked
        http.shutdown()


def test_a_server_is_looked_at_for_the_window(server):
    address, asked = server
    live = bs.read_metrics(address, window=0.01, sleep=lambda _: None)
    assert set(asked) == {"/metrics"}
    assert len(asked) >= 2
    assert live.finished == 100 * (len(asked) - 1)


def test_nobody_else_is_asked(server, monkeypatch):
    address, asked = server
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="answers 302"):
        bs.read_metrics(f"{address}/moved")
    assert asked == ["/moved"]
    assert bs.read_metrics(address, window=0.01, sleep=lambda _: None).server == "vLLM"


def test_reading_is_bounded(server, monkeypatch):
    monkeypatch.setattr(scrape, "MOST_BYTES", 500_000)
    with pytest.raises(DataError, match="more than"):
        bs.read_metrics(f"{server[0]}/endless")


def test_no_answer_is_one_line():
    with pytest.raises(DataError, match="no answer"):
        bs.read_metrics("http://127.0.0.1:9/metrics", timeout=1)


def test_a_histograms_percentiles_and_spread():
    rng = np.random.default_rng(0)
    values = rng.lognormal(math.log(500) - 0.32, 0.8, 20_000)
    cumulative = {e: float((values <= e).sum()) for e in map(float, EDGES)}
    found = Histogram.of(cumulative, float(values.sum()))
    assert found.mean == pytest.approx(values.mean())
    assert found.cv() == pytest.approx(values.std() / values.mean(), rel=0.05)
    assert found.percentile(0.5) == pytest.approx(np.percentile(values, 50), rel=0.15)
    assert Histogram.of({1.0: 0.0, math.inf: 5.0}, 50.0).percentile(0.5) is None
    assert Histogram.of({1.0: 0.0, math.inf: 0.0}, 0.0) is None


def test_looks_without_a_common_name_are_refused():
    with pytest.raises(DataError, match="no metrics of"):
        live_metrics([Scrape(0.0, {"up": {(): 1.0}})])
