"""Our simulator against vLLM's own scheduler on a virtual clock, request by request.

    python validation/vllm_scheduler.py                          compare with the stored answers
    python validation/vllm_scheduler.py --vllm-python PATH       ask vLLM again, store, compare

Both get the same requests, limits and step times. vLLM's `Scheduler` and `AsyncScheduler` run in
an environment of their own (`vllm_driver.py`; any vLLM that imports, a CPU build suffices) and
decide who is admitted, how prompts are cut, who is preempted. What they did is stored in
`vllm_scheduler.json`; `vllm_scheduler.md` is the comparison, to a nanosecond.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bestserve.models.prefix_tree import PrefixTree
from bestserve.models.prefixes import Caching
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Lane, Lengths
from bestserve.simulator import Requests, simulate

HERE = Path(__file__).parent
STORED = HERE / "vllm_scheduler.json"
REPORT = HERE / "vllm_scheduler.md"
SEED = 1
NANOSECOND = 1e-9
ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)
STEP = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6, phi=1.1)
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 2048,
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One engine and one stream of requests: a Poisson rate [req/s], mean lengths [tokens]."""

    name: str
    rate: float
    prompt: int
    output: int
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    num_blocks: int = 100_000
    requests: int = 200
    at_once: int = 1
    """Requests that arrive together."""
    fixed: bool = False
    """All prompts and outputs equal."""
    groups: int = 0
    """Shared prefixes, one a request, of equal chance; 0: nothing is shared, no prefix cache."""
    prefix: int = 0
    """Tokens of each, in front of the prompt."""


CASES = (
    Case(name="chat", rate=8.0, prompt=800, output=200),
    Case(name="near saturation", rate=14.0, prompt=800, output=200),
    Case(name="budget 256", rate=6.0, prompt=800, output=200, max_num_batched_tokens=256),
    Case(name="prompts of many budgets", rate=2.0, prompt=6000, output=100),
    Case(name="8 sequences", rate=6.0, prompt=400, output=150, max_num_seqs=8),
    Case(name="short answers", rate=40.0, prompt=300, output=8),
    Case(name="one token", rate=30.0, prompt=500, output=1, fixed=True),
    Case(name="equal lengths in bursts", rate=8.0, prompt=512, output=64, at_once=16, fixed=True),
    Case(name="cache nearly full", rate=8.0, prompt=600, output=300, num_blocks=1600),
    Case(name="evicting all the time", rate=12.0, prompt=300, output=300, num_blocks=400),
    Case(name="shared prefixes", rate=10.0, prompt=150, output=100, groups=12, prefix=1000),
    Case(
        name="more prefixes than the cache holds",
        rate=10.0,
        prompt=150,
        output=100,
        groups=40,
        prefix=1000,
        num_blocks=1500,
        requests=400,
    ),
    Case(
        name="shared prefixes and evictions",
        rate=14.0,
        prompt=150,
        output=200,
        groups=10,
        prefix=500,
        num_blocks=500,
        requests=300,
    ),
    Case(
        name="evicting prompts under way",
        rate=12.0,
        prompt=900,
        output=200,
        num_blocks=600,
        max_num_batched_tokens=256,
    ),
)


class Work(NamedTuple):
    """Requests in order of arrival: times [s], prompts and outputs [tokens], shared prefix."""

    times: np.ndarray
    prompts: np.ndarray
    outputs: np.ndarray
    group: np.ndarray


def stream(case: Case, seed: int) -> Work:
    """Return Poisson arrivals of geometric prompts and outputs, cut at eight times their mean."""
    rng = np.random.default_rng(seed)
    n = case.requests
    groups = -(-n // case.at_once)
    times = np.cumsum(rng.exponential(case.at_once / case.rate, groups))
    times = np.repeat(times - times[0], case.at_once)[:n]
    if case.fixed:
        return Work(times, np.full(n, case.prompt), np.full(n, case.output), np.zeros(n, dtype=int))
    prompts = case.prefix + np.minimum(1 + rng.geometric(1 / case.prompt, n), 8 * case.prompt)
    outputs = np.minimum(rng.geometric(1 / case.output, n), 8 * case.output)
    return Work(times, prompts, outputs, rng.integers(0, max(case.groups, 1), n))


def tokens(case: Case, work: Work, number: int) -> list[int]:
    """Return made-up token ids of a prompt: those of its group's prefix, then its own."""
    group = int(work.group[number])
    own = int(work.prompts[number]) - case.prefix
    shared = range(group * 100_000, group * 100_000 + case.prefix)
    return [*shared, *range(10**8 + number * 100_000, 10**8 + number * 100_000 + own)]


def question(case: Case, work: Work, *, asynchronous: bool) -> dict[str, Any]:
    """Return what vLLM's scheduler is asked."""
    return {
        "step_time": {k: v for k, v in asdict(STEP).items() if k != "moe"},
        "engine": {
            "max_num_seqs": case.max_num_seqs,
            "max_num_batched_tokens": case.max_num_batched_tokens,
            "max_model_len": 32768,
            "block_size": 16,
            "num_blocks": case.num_blocks,
            "enable_prefix_caching": case.groups > 0,
            "async_scheduling": asynchronous,
        },
        "requests": [
            {
                "arrival": float(work.times[i]),
                "prompt": int(work.prompts[i]),
                "output": int(work.outputs[i]),
                **({"tokens": tokens(case, work, i)} if case.groups else {}),
            }
            for i in range(len(work.times))
        ],
    }


def ask_vllm(python: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what vLLM's scheduler does with each question."""
    env = dict(os.environ, HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")
    env.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        done = subprocess.run(
            [python, str(HERE / "vllm_driver.py")],
            input=json.dumps({"model": folder, "questions": questions}),
            capture_output=True,
            text=True,
            env=env,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"vLLM's scheduler: {done.stderr[-800:]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def ours(case: Case, work: Work, *, asynchronous: bool) -> Any:
    """Return the simulator's run of the same work."""
    system = Collocated(
        lane=Lane(
            step=STEP,
            max_num_seqs=case.max_num_seqs,
            max_num_batched_tokens=case.max_num_batched_tokens,
            kv_capacity_tokens=float(case.num_blocks * 16),
            kv_block=16,
            async_scheduling=asynchronous,
        ),
        replicas=1,
        lengths=ANY,
        arrivals=Arrivals(kind="trace", times=work.times),
        caching=Caching() if case.groups else None,
    )
    tree = shared_prefixes(case, work) if case.groups else None
    given = Requests(input_len=work.prompts, output_len=work.outputs, tree=tree)
    return simulate(system, given=given)


def shared_prefixes(case: Case, work: Work) -> PrefixTree:
    """Return what the requests share: one prefix a group."""
    n = len(work.times)
    return PrefixTree(
        parent=np.full(case.groups, -1),
        end=np.full(case.groups, case.prefix),
        tip=work.group,
        own=np.full(n, -1),
        key=work.group,
        follows=np.full(n, -1),
        pause=np.zeros(n),
    )


@dataclass(frozen=True)
class Comparison:
    """One case in one mode: how many requests differ by more than a nanosecond, and figures."""

    case: Case
    asynchronous: bool
    different: int
    preemptions: tuple[int, int]
    ttft_p50: float
    ttft_p90: float
    tpot_mean: float


def compare(case: Case, stored: dict[str, Any]) -> Comparison:
    """Simulate the case and hold it to what vLLM's scheduler did."""
    asynchronous = stored["async_scheduling"]
    work = stream(case, SEED)
    mine = ours(case, work, asynchronous=asynchronous)
    first, last = (np.array(stored[name], dtype=float) for name in ("first", "last"))
    different = (np.abs(first - mine.first_token) > NANOSECOND) | (
        np.abs(last - mine.last_token) > NANOSECOND
    )
    many = work.outputs > 1
    tpot = (last - first)[many] / (work.outputs[many] - 1)
    return Comparison(
        case,
        asynchronous,
        int(different.sum()),
        (sum(stored["preempted"]), int(mine.preemptions.sum())),
        float(np.median(first - work.times)),
        float(np.quantile(first - work.times, 0.9)),
        float(np.mean(tpot)) if many.any() else float("nan"),
    )


def load() -> dict[str, Any]:
    """Return the stored answers."""
    stored: dict[str, Any] = json.loads(STORED.read_text())
    return stored


def comparisons(stored: dict[str, Any]) -> list[Comparison]:
    """Compare every stored case."""
    by_name = {case.name: case for case in CASES}
    return [compare(by_name[answer["case"]], answer) for answer in stored["answers"]]


def ask_again(python: str) -> None:
    """Ask vLLM's scheduler every case in both modes and store what it did."""
    asked = [(case, mode) for case in CASES for mode in (False, True)]
    answers = ask_vllm(
        python, [question(c, stream(c, SEED), asynchronous=mode) for c, mode in asked]
    )
    version = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('vllm'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    kept = [
        {
            "case": case.name,
            "async_scheduling": mode,
            "first": [round(t, 10) for t in answer["first"]],
            "last": [round(t, 10) for t in answer["last"]],
            "preempted": answer["preempted"],
        }
        for (case, mode), answer in zip(asked, answers, strict=True)
    ]
    stored = {"vllm": version, "date": str(date.today()), "seed": SEED, "answers": kept}
    STORED.write_text(json.dumps(stored, separators=(",", ":")) + "\n")


def report(stored: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    rows = [
        f"| {c.case.name} | {'asynchronous' if c.asynchronous else 'synchronous'} "
        f"| {c.different} of {c.case.requests} | {c.preemptions[0]} / {c.preemptions[1]} "
        f"| {c.ttft_p50 * 1e3:.1f} ms | {c.ttft_p90 * 1e3:.1f} ms | {c.tpot_mean * 1e3:.2f} ms |"
        for c in comparisons(stored)
    ]
    return "\n".join(
        [
            "# The simulator against vLLM's scheduler",
            "",
            f"vLLM {stored['vllm']}, {stored['date']}, seed {stored['seed']}; made by",
            "`python validation/vllm_scheduler.py`. Both sides get the same requests, limits and",
            "step times; a request differs if its first or last token comes out at another",
            "nanosecond. TTFT and TPOT are vLLM's.",
            "",
            "| case | scheduling | requests that differ | preemptions, vLLM / ours "
            "| TTFT P50 | TTFT P90 | TPOT mean |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm-python", help="the Python of an environment with vLLM")
    options = parser.parse_args()
    if options.vllm_python:
        ask_again(options.vllm_python)
    text = report(load())
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
