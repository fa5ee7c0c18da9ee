"""Measure a real vLLM on this machine's CPU with vLLM's own client; keep the logs.

    python validation/real_engine.py --vllm-python PATH [--only NAME …]

A Llama of 6 layers with random weights is served by `vllm serve` and loaded by
`vllm bench serve`; nothing is downloaded. The first runs are for fitting the seconds of a step,
the others for predicting (`real_engine_report.py`). Server and client share the machine: leave it
alone meanwhile. What the client saved goes to `real_engine/`, without texts, times to 10 µs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

LOGS = Path(__file__).parent / "real_engine"
PORT = 8123
VOCABULARY = 2048
BLOCK = 32
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": VOCABULARY - 2,
    "eos_token_id": VOCABULARY - 1,
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """One start of the engine, in vLLM's options."""

    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    num_blocks: int = 2048
    max_model_len: int = 4096
    prefix_caching: bool = False
    draft_tokens: int = 0

    def options(self) -> list[str]:
        """Return the words of `vllm serve`."""
        return [
            *("--max-num-seqs", str(self.max_num_seqs)),
            *("--max-num-batched-tokens", str(self.max_num_batched_tokens)),
            *("--num-gpu-blocks-override", str(self.num_blocks)),
            *("--block-size", str(BLOCK), "--max-model-len", str(self.max_model_len)),
            f"--{'' if self.prefix_caching else 'no-'}enable-prefix-caching",
            *("--dtype", "float32", "--enforce-eager"),
            *(("--speculative-config", json.dumps(self.ngram())) if self.draft_tokens else ()),
        ]

    def ngram(self) -> dict[str, Any]:
        """Return vLLM's words for drafts copied from what was said."""
        return {
            "method": "ngram",
            "num_speculative_tokens": self.draft_tokens,
            "prompt_lookup_max": 3,
            "prompt_lookup_min": 1,
        }


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the client; lengths are uniform within ± `spread` of their means [tokens]."""

    name: str
    server: Server = Server()
    fit: bool = False
    rate: float = float("inf")
    concurrency: int | None = None
    prompts: int
    input_len: int = 64
    output_len: int = 32
    prefix_len: int = 0
    spread: float = 0.5

    def options(self) -> list[str]:
        """Return the words of `vllm bench serve`."""
        limit = ["--max-concurrency", str(self.concurrency)] if self.concurrency else []
        return [
            *("--dataset-name", "random", "--random-range-ratio", str(self.spread)),
            *("--random-input-len", str(self.input_len)),
            *("--random-output-len", str(self.output_len)),
            *("--random-prefix-len", str(self.prefix_len)),
            *("--num-prompts", str(self.prompts), "--request-rate", str(self.rate)),
            *limit,
            *("--seed", str(sum(map(ord, self.name)))),
        ]


SMALL_BUDGET = Server(max_num_batched_tokens=64)
FEW = Server(max_num_seqs=4)
FULL = Server(num_blocks=24, max_model_len=512)
CACHING = Server(prefix_caching=True)
DRAFTING = Server(draft_tokens=3)

RUNS = (
    Run(name="alone-short", fit=True, concurrency=1, prompts=30),
    Run(name="alone-long", fit=True, concurrency=1, prompts=12, input_len=1200, output_len=24),
    Run(name="closed-2", fit=True, concurrency=2, prompts=40),
    Run(name="closed-6", fit=True, concurrency=6, prompts=80),
    Run(name="closed-24", fit=True, concurrency=24, prompts=200),
    Run(name="closed-long-8", fit=True, concurrency=8, prompts=60, input_len=400, output_len=64),
    Run(name="poisson-2", rate=2.0, prompts=150),
    Run(name="poisson-5", rate=5.0, prompts=350),
    Run(name="poisson-8", rate=8.0, prompts=500),
    Run(name="poisson-long-2", rate=2.0, prompts=140, input_len=300, output_len=64),
    Run(name="closed-12", concurrency=12, prompts=200),
    Run(name="budget-poisson-5", server=SMALL_BUDGET, rate=5.0, prompts=300),
    Run(name="budget-closed-8", server=SMALL_BUDGET, concurrency=8, prompts=100, input_len=200),
    Run(name="four-sequences", server=FEW, rate=4.0, prompts=240),
    Run(name="evicting", server=FULL, rate=1.5, prompts=100, output_len=128),
    Run(name="prefix-poisson-5", server=CACHING, rate=5.0, prompts=300, prefix_len=256),
    Run(name="drafting-poisson-3", server=DRAFTING, rate=3.0, prompts=180),
)


def write_model(folder: Path) -> None:
    """Write a model's config and a tokenizer of made-up words."""
    words = {f"w{i}": i for i in range(VOCABULARY - 3)}
    words |= {"<unk>": VOCABULARY - 3, "<s>": VOCABULARY - 2, "</s>": VOCABULARY - 1}
    tokenizer = {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder")),
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "config.json").write_text(json.dumps(MODEL))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names})
    )


def vllm(python: str, *words: str) -> list[str]:
    """Return a command of vLLM's command line."""
    return [python, "-m", "vllm.entrypoints.cli.main", *words]


def environment() -> dict[str, str]:
    """Return an environment in which nothing is fetched or reported."""
    return {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0))),
    }


@contextmanager
def serving(python: str, model: Path, server: Server, log: Path) -> Iterator[None]:
    """Serve the model until the block ends."""
    words = ("serve", str(model), "--load-format", "dummy", "--served-model-name", "tiny")
    place = ("--host", "127.0.0.1", "--port", str(PORT))
    with log.open("w") as out:
        process = subprocess.Popen(
            vllm(python, *words, *place, *server.options()),
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
            cwd=model,
        )
    try:
        wait_for(process, log)
        yield
    finally:
        process.terminate()
        process.wait(60)


def wait_for(process: subprocess.Popen[bytes], log: Path, patience: float = 600.0) -> None:
    """Wait until the server answers [s]. Raises RuntimeError when it ends or takes too long."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-1500:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2):
                return
        except OSError:
            time.sleep(1.0)
    raise RuntimeError("the server does not answer")


def on_the_last_core() -> None:
    """Keep the client off the core whose steps are measured, where there are two."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(python: str, model: Path, run: Run, folder: Path) -> dict[str, Any]:
    """Return what vLLM's client saved of one run."""
    saved = folder / f"{run.name}.json"
    words = [
        *("bench", "serve", "--backend", "openai", "--endpoint", "/v1/completions"),
        *("--base-url", f"http://127.0.0.1:{PORT}", "--model", "tiny", "--tokenizer", str(model)),
        *("--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"),
        *("--num-warmups", "3"),
        *("--result-dir", str(folder), "--result-filename", saved.name),
        *run.options(),
    ]
    done = subprocess.run(
        vllm(python, *words),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=model,
        preexec_fn=on_the_last_core,
    )
    if done.returncode:
        raise RuntimeError(f"{run.name}: {done.stderr[-1500:]}")
    result: dict[str, Any] = json.loads(saved.read_text())
    return result


def trimmed(result: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return the figures of a run without texts, in order of arrival, times to 10 µs."""
    order = sorted(range(len(result["start_times"])), key=lambda i: result["start_times"][i])
    start = result["start_times"][order[0]]
    seconds = {
        "start_times": [round(result["start_times"][i] - start, 5) for i in order],
        "ttfts": [round(result["ttfts"][i], 5) for i in order],
        "last": [round(result["ttfts"][i] + sum(result["itls"][i]), 5) for i in order],
    }
    drafts = {key: value for key, value in result.items() if key.startswith("spec_decode")}
    return {
        "name": run.name,
        **drafts,
        "failed": result["failed"],
        "input_lens": [result["input_lens"][i] for i in order],
        "output_lens": [result["output_lens"][i] for i in order],
        **seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm-python", default=os.environ.get("BESTSERVE_VLLM_PYTHON"))
    parser.add_argument("--only", nargs="*", help="names of runs")
    options = parser.parse_args()
    if not options.vllm_python:
        sys.exit("--vllm-python: the Python of an environment with vLLM for CPUs")
    version = subprocess.run(
        [options.vllm_python, "-c", "import importlib.metadata as m; print(m.version('vllm'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    chosen = [run for run in RUNS if not options.only or run.name in options.only]
    LOGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        write_model(model)
        for server in dict.fromkeys(run.server for run in chosen):
            with serving(options.vllm_python, model, server, Path(scratch) / "server.log"):
                for run in (run for run in chosen if run.server == server):
                    result = measure(options.vllm_python, model, run, Path(scratch))
                    kept = trimmed(result, run)
                    machine = f"{os.cpu_count()} cores, {platform.machine()}"
                    kept |= {"vllm": version, "date": str(date.today()), "machine": machine}
                    (LOGS / f"{run.name}.json").write_text(
                        json.dumps(kept, separators=(",", ":")) + "\n"
                    )
                    print(f"{run.name}: {len(kept['ttfts'])} requests", flush=True)


if __name__ == "__main__":
    main()
