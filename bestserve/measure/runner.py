"""Times one point of the grid on one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bestserve.measure.attention import uniform
from bestserve.measure.collective import REPEATS, all_reduce_rows
from bestserve.measure.dispatch import examine
from bestserve.measure.grid import Grid, Kind, Point
from bestserve.measure.layer import LayerStack
from bestserve.measure.machine import Machine, Op
from bestserve.measure.shapes import ELEMENT_BYTES, Format, LayerShape
from bestserve.measure.timing import Timing, kernel_time, step_time, submission_time, sync_time

Row = dict[str, Any]

CACHE_FACTOR = 2
"""A cycle that touches less than this many times the last-level cache is timed after a flush."""

TINY_LAUNCHES = 200
"""Kernels per sample when the launch itself is timed; well below the device queue's length."""


class Runner:
    """Measures points on `machine`, on a stack of layers that it builds once.

    cache_bytes : last-level cache of the device [B]; budget : host time per timing [s]
    """

    def __init__(
        self,
        torch: Any,
        machine: Machine,
        device: Any,
        shape: LayerShape,
        grid: Grid,
        *,
        fmt: Format = "bf16",
        cache_bytes: int,
        budget: float = 0.1,
    ) -> None:
        self.torch, self.machine, self.shape, self.grid = torch, machine, shape, grid
        self.cache_bytes, self.budget = cache_bytes, budget
        self.stack = build_stack(torch, device, shape, grid, fmt)
        self._matrices: dict[tuple[Format, int, int], list[Any]] = {}
        self._kinds: dict[Kind, Callable[[Point], Row]] = {
            "launch": self._launch,
            "gemm": self._gemm,
            "decode_attention": self._decode_attention,
            "prefill_attention": self._prefill_attention,
            "norm": self._norm,
            "activation": self._activation,
            "layer_decode": self._layer_decode,
            "layer_prefill": self._layer_prefill,
            "dispatch": self._dispatch,
            "all_reduce": self._all_reduce,
        }
        self._reduced: dict[int, dict[int, Row]] = {}

    def measure(self, point: Point) -> Row:
        """Return the journal row of `point`: its key, sizes and timings."""
        with self.torch.inference_mode():
            figures = self._kinds[point.kind](point)
        return {"key": point.key, "kind": point.kind, **dict(point.sizes), **figures}

    def _kernels(self, cycle: list[Op], bytes_touched: float) -> Row:
        """Time the ops of `cycle`, which together touch `bytes_touched` [B]."""
        flush = bytes_touched < CACHE_FACTOR * self.cache_bytes
        return timing_row(kernel_time(self.machine, cycle, budget=self.budget, flush=flush))

    def _launch(self, point: Point) -> Row:
        """Time the host putting tiny kernels into the queue, and an idle synchronisation."""
        cell = self.torch.ones(1, device=self.stack.device)
        tiny = [Op("tiny", lambda: cell.add_(1.0))] * TINY_LAUNCHES
        host = submission_time(self.machine, tiny, budget=self.budget).scaled(1 / TINY_LAUNCHES)
        row = timing_row(host)
        row["sync_s"] = sync_time(self.machine).median
        graph = self.machine.capture(tiny)
        if graph is not None:
            replay = submission_time(self.machine, [graph], budget=self.budget)
            row["graph_launch_s"] = replay.median
            row["graph_step_s"] = step_time(self.machine, [graph], budget=self.budget).median
        return row

    def _gemm(self, point: Point) -> Row:
        m, n, k = point["m"], point["n"], point["k"]
        fmt: Format = "fp8" if point.text("fmt") == "fp8" else "bf16"
        weights = self._weights(fmt, n, k)
        stack = self.stack
        # Serving engines quantise the input in the kernel before, so that is not timed here.
        x, out = stack.quantised(stack.draw(m, k), fmt), stack.draw(m, n)

        def product(weight: Any) -> Op:
            return Op("gemm", lambda: stack.multiply(x, weight, out))

        touched = len(weights) * n * k * ELEMENT_BYTES[fmt]
        return self._kernels([product(w) for w in weights], touched)

    def _weights(self, fmt: Format, n: int, k: int) -> list[Any]:
        """Return one matrix per layer; the stack's own where the format is the stack's."""
        for name, size in self.shape.gemms().items():
            if size == (n, k) and fmt == self.stack.fmt:
                return [layer[name] for layer in self.stack.weights]
        key = (fmt, n, k)
        if key not in self._matrices:
            self._matrices = {key: [self.stack.matrix(n, k, fmt) for _ in self.stack.weights]}
        return self._matrices[key]

    def _step_part(self, ragged: Any, name: str) -> list[Op]:
        return [op for op in self.stack.ops(ragged) if op.name == name]

    def _decode_attention(self, point: Point) -> Row:
        batch, context = point["batch"], point["context"]
        cycle = self._step_part(uniform(batch, 1, context), "attention")
        per_token = self.shape.kv_elements_per_token * self.stack.dtype.itemsize
        return self._kernels(cycle, len(cycle) * batch * context * per_token)

    def _prefill_attention(self, point: Point) -> Row:
        q = point["prompt"]
        cycle = self._step_part(uniform(point["batch"], q, q), "attention")
        return self._kernels(cycle, float("inf"))

    def _norm(self, point: Point) -> Row:
        m, hidden = point["m"], self.shape.hidden
        x = self.stack.draw(m, hidden)
        hold: list[Any] = [None]
        ops = [Op("norm", self.stack.norm(x, w["norm1"], hold)) for w in self.stack.weights]
        row = self._kernels(ops, 2 * m * hidden * self.stack.dtype.itemsize)
        return {**row, "bytes": 2 * m * hidden * self.stack.dtype.itemsize, "kernels": 1}

    def _activation(self, point: Point) -> Row:
        """Time silu, then its product with the gate: two kernels, five passes over the width."""
        m, shape, stack = point["m"], self.shape, self.stack
        up, act = stack.draw(m, shape.up_width), stack.draw(m, shape.intermediate)
        cycle = [Op("activation", stack.activate(up, act), 2)]
        moved = (5 if shape.gated else 4) * m * shape.intermediate * stack.dtype.itemsize
        return {**self._kernels(cycle, moved), "bytes": moved, "kernels": 2}

    def _layer_decode(self, point: Point) -> Row:
        return self._step(uniform(point["batch"], 1, point["context"]), point)

    def _layer_prefill(self, point: Point) -> Row:
        return self._step(uniform(1, point["prompt"], point["prompt"]), point)

    def _step(self, ragged: Any, point: Point) -> Row:
        """Time one step of the stack from an idle device to the end, and its submission."""
        ops = self.stack.ops(ragged)
        launches = {"layers": self.grid.layers, "kernels": sum(op.kernels for op in ops)}
        if point.text("mode") == "graph":
            graph = self.machine.capture(ops)
            if graph is None:
                return {**launches, "skipped": "this device has no graphs"}
            ops = [graph]
        host = submission_time(self.machine, ops, budget=self.budget)
        row = timing_row(step_time(self.machine, ops, budget=self.budget))
        return {**row, **launches, "host_s": host.median}

    def _dispatch(self, point: Point) -> Row:
        ops = self.stack.ops(uniform(point["batch"], 1, point["context"]))
        found = examine(self.machine, ops, layers=self.grid.layers, budget=self.budget)
        return {**timing_row(found.eager), "layers": self.grid.layers, **found.row()}

    def _all_reduce(self, point: Point) -> Row:
        """Return one message size; all sizes of a group are timed when the first is asked for."""
        gpus = point["gpus"]
        if gpus not in self._reduced:
            rows = all_reduce_rows(gpus, self.grid.messages, device=self.stack.device.type)
            self._reduced[gpus] = {
                size: timing_row(Timing(median, low, high, REPEATS))
                for size, median, low, high in rows
            }
        return self._reduced[gpus][point["bytes"]]


def timing_row(timing: Timing) -> Row:
    """Return a timing as journal columns."""
    return {
        "median_s": timing.median,
        "low_s": timing.low,
        "high_s": timing.high,
        "repeats": timing.repeats,
    }


def build_stack(torch: Any, device: Any, shape: LayerShape, grid: Grid, fmt: Format) -> LayerStack:
    """Return the stack that can run every step of `grid`."""
    widest = max(*grid.prompts, *grid.batches)
    return LayerStack(
        torch,
        shape,
        layers=grid.layers,
        device=device,
        fmt=fmt,
        max_tokens=widest,
        kv_tokens=max(grid.kv_tokens, widest),
        max_context=max(*grid.contexts, *grid.prompts),
    )
