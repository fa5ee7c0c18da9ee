"""All-reduce between the GPUs of this machine, one process a GPU."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bestserve.measure.pytorch import require_torch

REPEATS = 30
WARMUP = 5


def all_reduce_rows(gpus: int, messages: Sequence[int], *, device: str = "cuda") -> list[Any]:
    """Time all-reduces of `messages` bytes over `gpus` processes: rows [bytes, median, low, high].

    Times are those of the slowest process [s]: a step waits for it. On "cuda" the collective is
    replayed from a graph, as serving engines run it; on "cpu" (gloo) it is called.
    """
    torch = require_torch()
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = torch.multiprocessing.start_processes(
        _worker,
        args=(gpus, port, list(messages), device, results),
        nprocs=gpus,
        join=False,
        start_method="spawn",
    )
    while not workers.join():
        pass
    return list(results.get())


def _worker(
    rank: int, gpus: int, port: int, messages: list[int], device: str, results: Any
) -> None:
    torch = require_torch()
    distributed = torch.distributed
    backend = "nccl" if device == "cuda" else "gloo"
    place = torch.device(device, rank) if device == "cuda" else torch.device("cpu")
    if device == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group(
        backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=gpus
    )
    rows = []
    for size in messages:
        buffer = torch.ones(size // 2, dtype=torch.bfloat16, device=place)
        samples = torch.tensor(_samples(torch, distributed, buffer, place), dtype=torch.float64)
        slowest = samples.to(place)
        distributed.all_reduce(slowest, op=distributed.ReduceOp.MAX)
        low, median, high = np.quantile(slowest.cpu().numpy(), [0.1, 0.5, 0.9])
        rows.append([size, float(median), float(low), float(high)])
    if rank == 0:
        results.put(rows)
    distributed.destroy_process_group()


def _samples(torch: Any, distributed: Any, buffer: Any, place: Any) -> list[float]:
    """Return the times of `REPEATS` all-reduces [s]."""
    if place.type != "cuda":
        found = []
        for _ in range(WARMUP + REPEATS):
            distributed.barrier()
            start = time.perf_counter()
            distributed.all_reduce(buffer)
            found.append(time.perf_counter() - start)
        return found[WARMUP:]
    for _ in range(WARMUP):
        distributed.all_reduce(buffer)
    torch.cuda.synchronize(place)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            distributed.all_reduce(buffer)
    found = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize(place)
        found.append(float(start.elapsed_time(end)) * 1e-4)  # ms of ten calls → s of one
    return found
