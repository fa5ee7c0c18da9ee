"""Flags that state what a measured log does not: vLLM's names, as elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from cyclopts import Parameter

from bestserve.cli.flags import Whole

FIELDS = {
    "gpus": "num_gpus",
    "tensor_parallel_size": "tp",
    "pipeline_parallel_size": "pp",
    "max_concurrency": "concurrency",
}
"""Flag -> field of the tidy row, where they differ."""


@Parameter(name="*")
@dataclass(frozen=True)
class StatedOptions:
    """What the log does not say; where it does, the flag wins and a note says so.

    Parameters
    ----------
    gpu
        GPU it ran on (see `bestserve catalog hardware`)
    gpus
        GPUs in all
    model
        model that was served
    engine
        vllm, sglang, tensorrt-llm or tgi
    engine_version
        its version, such as 0.11.0
    tensor_parallel_size
        tensor parallelism of one instance
    pipeline_parallel_size
        pipeline parallelism of one instance
    replicas
        instances behind the load balancer
    precision
        weight format where the model's name does not say it
    kv_cache_dtype
        auto or fp8
    max_num_seqs
        running sequences at most
    max_num_batched_tokens
        tokens per step at most
    gpu_memory_utilization
        share of GPU memory the engine may use
    request_rate
        rate the client offered [req/s]
    max_concurrency
        requests in flight at most
    num_prompts
        prompts the client sent
    input_len_std, output_len_std
        standard deviation of the lengths of prompts, or answers; without, they are alike [tokens]
    """

    gpu: Annotated[str | None, Parameter(name=["--gpu", "--hardware"])] = None
    gpus: Annotated[int | None, Whole] = None
    model: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    tensor_parallel_size: Annotated[int | None, Whole] = None
    pipeline_parallel_size: Annotated[int | None, Whole] = None
    replicas: Annotated[int | None, Whole] = None
    precision: str | None = None
    kv_cache_dtype: str | None = None
    max_num_seqs: Annotated[int | None, Whole] = None
    max_num_batched_tokens: Annotated[int | None, Whole] = None
    gpu_memory_utilization: float | None = None
    request_rate: float | None = None
    max_concurrency: Annotated[int | None, Whole] = None
    num_prompts: Annotated[int | None, Whole] = None
    input_len_std: float | None = None
    output_len_std: float | None = None

    def stated(self) -> dict[str, Any]:
        """Return the flags that were given, by field of the tidy row."""
        values = {FIELDS.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
