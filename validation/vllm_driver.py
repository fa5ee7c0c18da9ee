"""Drive vLLM's own scheduler on a virtual clock; runs in vLLM's environment, not in ours.

    VLLM_PYTHON vllm_driver.py < questions.json > answers.json

Each question has the requests (arrival [s], prompt, output [tokens], and optionally `tokens`,
the prompt's token ids, for prefix caching), the engine's limits and the seconds a step takes as
coefficients of a step time. The engine's loop (`EngineCore.step`, and `step_with_batch_queue`
for asynchronous scheduling) is repeated here with a clock instead of a device; who is admitted,
how a prompt is cut, who is preempted and which blocks are free is decided by vLLM's
`Scheduler`. The answer has, for each request, when its first and last token came out and how
often it was preempted, and for each step what was in it.
"""

from __future__ import annotations

import heapq
import json
import sys
from collections import deque
from typing import Any


def step_time(c: dict[str, float], tokens: int, pairs: float, context: int, n: int, prefill: bool):
    """Return the seconds of a step; the same formula as `bestserve.StepTime`, written again."""
    dense = (c["w"] ** 3 + (c["c"] * tokens) ** 3) ** (1 / 3) + c["e"] * tokens
    device = dense + c["a"] * pairs + c["k"] * context
    return c["a_step"] + c["a_seq"] * n + (c["phi"] if prefill else 1.0) * device


def build(question: dict[str, Any], folder: str):
    """Return vLLM's scheduler with the question's limits and blocks."""
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    limits = question["engine"]
    asynchronous = limits["async_scheduling"]
    block = limits["block_size"]
    model = ModelConfig(
        model=folder,
        skip_tokenizer_init=True,
        dtype="float32",
        seed=0,
        max_model_len=limits["max_model_len"],
    )
    scheduling = SchedulerConfig(
        max_num_seqs=limits["max_num_seqs"],
        max_num_batched_tokens=limits["max_num_batched_tokens"],
        max_model_len=limits["max_model_len"],
        enable_chunked_prefill=True,
        is_encoder_decoder=False,
        async_scheduling=asynchronous,
    )
    cache = CacheConfig(
        block_size=block,
        cache_dtype="auto",
        enable_prefix_caching=limits["enable_prefix_caching"],
    )
    config = VllmConfig(scheduler_config=scheduling, model_config=model, cache_config=cache)
    spec = FullAttentionSpec(block_size=block, num_kv_heads=1, head_size=1, dtype=torch.float32)
    blocks = KVCacheConfig(
        num_blocks=limits["num_blocks"] + 1,  # vLLM keeps block 0 for itself
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
    )
    cache.num_gpu_blocks = limits["num_blocks"] + 1
    return (AsyncScheduler if asynchronous else Scheduler)(
        vllm_config=config,
        kv_cache_config=blocks,
        structured_output_manager=StructuredOutputManager(config),
        block_size=block,
        log_stats=False,
    )


class Loop:
    """The engine core's loop with a virtual clock."""

    def __init__(self, question: dict[str, Any], folder: str) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.request import Request

        self.scheduler = build(question, folder)
        self.costs = question["step_time"]
        limits = question["engine"]
        self.depth = 2 if limits["async_scheduling"] else 1
        digest = get_hash_fn_by_name("sha256")
        init_none_hash(digest)
        hasher = (
            get_request_block_hasher(limits["block_size"], digest)
            if limits["enable_prefix_caching"]
            else None
        )
        self.arrivals: list[tuple[float, int, Any]] = []
        for number, r in enumerate(question["requests"]):
            tokens = r.get("tokens") or [(number * 7919 + i) % 32000 for i in range(r["prompt"])]
            request = Request(
                request_id=str(number),
                prompt_token_ids=tokens,
                sampling_params=SamplingParams(
                    max_tokens=r["output"], ignore_eos=True, temperature=0.0
                ),
                pooling_params=None,
                block_hasher=hasher,
            )
            request.sampling_params._all_stop_token_ids = set()
            heapq.heappush(self.arrivals, (r["arrival"], number, request))
        n = len(question["requests"])
        self.first: list[float | None] = [None] * n
        self.last: list[float | None] = [None] * n
        self.given = [0] * n
        self.target: dict[str, int] = {}
        self.cached = [0] * n
        self.preempted = [0] * n
        self.steps: list[tuple[float, float, int, int]] = []
        self.free_at = 0.0

    def composition(self, output: Any) -> tuple[int, float, int, int, bool]:
        """Return (tokens, pairs, context, sequences, whether a prompt is in it) of a step."""
        tokens = context = 0
        pairs, prefill = 0.0, False
        fresh = {r.req_id: r.num_computed_tokens for r in output.scheduled_new_reqs}
        again = dict(
            zip(
                output.scheduled_cached_reqs.req_ids,
                output.scheduled_cached_reqs.num_computed_tokens,
                strict=True,
            )
        )
        resumed = output.scheduled_cached_reqs.resumed_req_ids
        for name, taken in output.num_scheduled_tokens.items():
            before = fresh[name] if name in fresh else again[name]
            request = self.scheduler.requests[name]
            if name in fresh or name in resumed:
                self.target[name] = request.num_tokens
                self.cached[int(name)] = before
            tokens += taken
            if before < self.target[name]:
                pairs += taken * before + taken * taken / 2
                prefill = True
            else:
                context += before + 1
        return tokens, pairs, context, len(output.num_scheduled_tokens), prefill

    def accept(self, now: float) -> None:
        """Hand over what has arrived by `now` [s]."""
        while self.arrivals and self.arrivals[0][0] <= now:
            self.scheduler.add_request(heapq.heappop(self.arrivals)[2])

    def finish(self, output: Any, now: float) -> None:
        """Give the scheduler a token for each sequence whose last known token was computed."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        sampled: list[list[int]] = []
        for name in names:
            whole = self.ends[id(output)][name]
            sampled.append([1] if whole else [])
        self.ends.pop(id(output))
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
        )
        for outputs in self.scheduler.update_from_output(output, result).values():
            for item in outputs.outputs:
                number = int(item.request_id)
                self.given[number] += len(item.new_token_ids)
                if item.new_token_ids and self.first[number] is None:
                    self.first[number] = now
                if item.finish_reason is not None:
                    self.last[number] = now

    def run(self) -> None:
        """Step the scheduler until every request has ended."""
        self.ends: dict[int, dict[str, bool]] = {}
        now, flying = 0.0, deque[tuple[float, Any]]()
        while self.arrivals or flying or self.scheduler.has_requests():
            self.accept(now)
            if not flying and not self.scheduler.has_requests():
                now = self.arrivals[0][0]
                continue
            if self.scheduler.has_requests():
                output = self.scheduler.schedule()
                for name in getattr(output, "preempted_req_ids", None) or ():
                    self.preempted[int(name)] += 1
                work = self.composition(output)
                self.ends[id(output)] = {
                    # the tokens known when the step was formed are all computed after it
                    name: not self.scheduler.requests[name].is_prefill_chunk
                    for name in output.num_scheduled_tokens
                }
                start = max(now, self.free_at)
                end = start + (step_time(self.costs, *work) if work[0] else 0.0)
                if work[0]:
                    self.free_at = end
                    self.steps.append((start, end, work[0], work[3]))
                flying.append((end, output))
                if len(flying) < self.depth and (work[0] or self.scheduler.has_requests()):
                    continue
            end, output = flying.popleft()
            now = max(now, end)
            self.finish(output, now)
            if not work[0] and self.arrivals and not flying:  # nothing fits until someone comes
                now = max(now, self.arrivals[0][0])


def main() -> None:
    asked = json.load(sys.stdin)
    sys.stdout, out = sys.stderr, sys.stdout
    answers = []
    for question in asked["questions"]:
        loop = Loop(question, asked["model"])
        loop.run()
        answers.append(
            {
                "first": loop.first,
                "last": loop.last,
                "given": loop.given,
                "cached": loop.cached,
                "preempted": loop.preempted,
                "steps": loop.steps,
            }
        )
    json.dump(answers, out)


if __name__ == "__main__":
    main()
