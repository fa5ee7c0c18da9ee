"""A stack of decoder layers with random weights, as a list of submissions to the device.

Weights are random because time does not depend on them (zeros would run faster). Each operation
writes into a buffer made beforehand, so that a list of operations can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bestserve.errors import InputError
from bestserve.measure.attention import PAGE, Ragged, choose
from bestserve.measure.machine import Op
from bestserve.measure.shapes import Format, LayerShape

ROUTING_SEED = 1
ROPE_BASE = 10_000.0


def paged(tokens: int) -> int:
    """Return `tokens` rounded up to whole pages."""
    return -(-tokens // PAGE) * PAGE


class LayerStack:
    """`layers` equal decoder layers of `shape` on one device, with their KV cache.

    max_tokens : tokens of the widest step; kv_tokens : tokens that the cache of a layer holds, cut
    into slots of equal length step by step; max_context : longest sequence
    """

    def __init__(
        self,
        torch: Any,
        shape: LayerShape,
        *,
        layers: int,
        device: Any,
        fmt: Format = "bf16",
        max_tokens: int,
        kv_tokens: int,
        max_context: int,
        seed: int = 0,
    ) -> None:
        if shape.experts and fmt == "fp8":
            raise InputError("fp8 experts are not measured: use --format bf16 for MoE models")
        self.torch, self.shape, self.layers, self.device, self.fmt = (
            torch, shape, layers, torch.device(device), fmt
        )  # fmt: skip
        self.dtype = torch.bfloat16
        self.one = torch.ones((), dtype=torch.float32, device=self.device)
        self.max_tokens = max_tokens
        self.kv_tokens, self.max_context = paged(kv_tokens), max_context
        generator = torch.Generator(device=self.device).manual_seed(seed)

        def draw(*size: int, scale: float = 1.0) -> Any:
            values = torch.randn(*size, generator=generator, device=self.device, dtype=self.dtype)
            return values.mul_(scale)

        self.draw = draw
        self.attention = choose(
            torch, self.device, dtype=self.dtype, head_dim=shape.head_dim, window=shape.window
        )
        self.weights = [self._layer_weights() for _ in range(layers)]
        self.cache = [
            tuple(draw(self.kv_tokens, shape.kv_heads, shape.head_dim) for _ in "kv")
            for _ in range(layers)
        ]
        angles = torch.arange(max_context, device=self.device)[:, None] * ROPE_BASE ** (
            -torch.arange(0, shape.head_dim, 2, device=self.device) / shape.head_dim
        )
        self.cos, self.sin = (f(angles).to(self.dtype)[:, None] for f in (torch.cos, torch.sin))
        self._buffers()

    def _layer_weights(self) -> dict[str, Any]:
        shape, torch = self.shape, self.torch
        made: dict[str, Any] = {name: self.matrix(n, k) for name, (n, k) in shape.gemms().items()}
        made["norm1"] = torch.ones(shape.hidden, dtype=self.dtype, device=self.device)
        made["norm2"] = torch.ones(shape.hidden, dtype=self.dtype, device=self.device)
        if shape.experts:
            made["router"] = self.draw(shape.experts, shape.hidden)
            scale = shape.hidden**-0.5
            made["experts_up"] = self.draw(shape.experts, shape.hidden, shape.up_width, scale=scale)
            made["experts_down"] = self.draw(
                shape.experts, shape.intermediate, shape.hidden, scale=shape.intermediate**-0.5
            )
        return made

    def matrix(self, n: int, k: int, fmt: Format | None = None) -> Any:
        """Return random weights [n, k], by default in the stack's format, of 1/√k standard size."""
        values = self.draw(n, k, scale=k**-0.5)
        return values.to(self.torch.float8_e4m3fn) if (fmt or self.fmt) == "fp8" else values

    def _buffers(self) -> None:
        torch, shape, rows = self.torch, self.shape, self.max_tokens

        def empty(*size: int) -> Any:
            return torch.empty(*size, dtype=self.dtype, device=self.device)

        self.residual = self.draw(rows, shape.hidden)
        self.added = empty(rows, shape.hidden)
        self.qkv = empty(rows, shape.qkv_width)
        rotated = shape.heads + shape.kv_heads
        self.rotated = empty(rows, rotated, shape.head_dim)
        expert_rows = rows * max(1, shape.top_k)
        self.up = empty(expert_rows, shape.up_width)
        self.act = empty(expert_rows, shape.intermediate)

    def quantised(self, x: Any, fmt: Format) -> Any:
        """Return x as a GEMM with weights in `fmt` reads it."""
        return x.to(self.torch.float8_e4m3fn) if fmt == "fp8" else x

    def multiply(self, x: Any, weight: Any, out: Any) -> None:
        """Write x · weightᵀ into `out`; both in one format."""
        if weight.dtype == self.dtype:
            self.torch.mm(x, weight.t(), out=out)
        else:
            self.torch._scaled_mm(x, weight.t(), self.one, self.one, out_dtype=self.dtype, out=out)

    def project(self, x: Any, weight: Any, out: Any) -> None:
        """Write x · weightᵀ into `out`, x in bf16 and quantised first where the stack is fp8."""
        self.multiply(self.quantised(x, self.fmt), weight, out)

    def ops(self, ragged: Ragged, slot_tokens: int = 0) -> list[Op]:
        """Return the submissions of one step over all layers, in order.

        slot_tokens : length of a cache slot, default just enough for the longest context
        """
        length = paged(slot_tokens or max(ragged.contexts))
        if ragged.tokens > self.max_tokens:
            raise InputError(f"{ragged.tokens} tokens in a step of at most {self.max_tokens}")
        if max(ragged.contexts) > min(length, self.max_context):
            raise InputError(f"context {max(ragged.contexts)} in slots of {length} tokens")
        if (max(ragged.slots) + 1) * length > self.kv_tokens:
            raise InputError(
                f"{max(ragged.slots) + 1} slots of {length} tokens in a cache of {self.kv_tokens}"
            )
        step = self.attention.prepare(ragged)
        places = self._places(ragged, length)
        made: list[Op] = []
        for index in range(self.layers):
            made += self._layer_ops(index, ragged.tokens, step, length, *places)
        return made

    def slots(self, index: int, length: int) -> tuple[Any, Any]:
        """Return keys and values of layer `index` as [slots, length, kv_heads, head_dim]."""
        count = self.kv_tokens // length
        k, v = (t[: count * length].unflatten(0, (count, length)) for t in self.cache[index])
        return k, v

    def _places(self, ragged: Ragged, length: int) -> tuple[Any, Any, Any]:
        """Return each token's row in the flat cache and its rotation."""
        positions: list[int] = []
        rows: list[int] = []
        for slot, count, end in zip(ragged.slots, ragged.queries, ragged.contexts, strict=True):
            positions += range(end - count, end)
            rows += range(slot * length + end - count, slot * length + end)
        where = self.torch.tensor([rows, positions], device=self.device)
        return where[0], self.cos[where[1]], self.sin[where[1]]

    def _layer_ops(
        self, index: int, tokens: int, step: Any, length: int, rows: Any, cos: Any, sin: Any
    ) -> list[Op]:
        torch, shape, weights = self.torch, self.shape, self.weights[index]
        x, added = self.residual[:tokens], self.added[:tokens]
        qkv, turned = self.qkv[:tokens], self.rotated[:tokens]
        heads, kv_heads, d = shape.heads, shape.kv_heads, shape.head_dim
        split = qkv.view(tokens, heads + 2 * kv_heads, d)
        k_flat, v_flat = self.cache[index]
        k_cache, v_cache = self.slots(index, length)
        h: list[Any] = [None]
        attended: list[Any] = [None]

        def rotate() -> None:
            low, high = split[:, :-kv_heads, : d // 2], split[:, :-kv_heads, d // 2 :]
            first, second = turned[..., : d // 2], turned[..., d // 2 :]
            torch.mul(low, cos, out=first)
            first.addcmul_(high, sin, value=-1)
            torch.mul(high, cos, out=second)
            second.addcmul_(low, sin)

        def store() -> None:
            k_flat.index_copy_(0, rows, turned[:, heads:])
            v_flat.index_copy_(0, rows, split[:, -kv_heads:])

        def attend() -> None:
            attended[0] = self.attention(turned[:, :heads], k_cache, v_cache, step)

        def output() -> None:
            self.project(attended[0].reshape(tokens, heads * d), weights["attention_out"], added)

        quantise = 1 if self.fmt == "fp8" else 0
        first_half = [
            Op("norm", self.norm(x, weights["norm1"], h)),
            Op("qkv", lambda: self.project(h[0], weights["qkv"], qkv), 1 + quantise),
            Op("rotate", rotate, 4),
            Op("store", store, 2),
            Op("attention", attend, self.attention.kernels),
            Op("attention_out", output, 1 + quantise),
            Op("residual", lambda: x.add_(added)),
            Op("norm", self.norm(x, weights["norm2"], h)),
        ]
        ffn = self._expert_ops if shape.experts else self._dense_ops
        return [*first_half, *ffn(weights, tokens, h), Op("residual", lambda: x.add_(added))]

    def norm(self, x: Any, weight: Any, out: list[Any]) -> Callable[[], Any]:
        """Return RMSNorm of x into `out[0]`; the kernel makes its own output."""
        rms_norm, width = self.torch.nn.functional.rms_norm, (x.shape[-1],)

        def run() -> None:
            out[0] = rms_norm(x, width, weight)

        return run

    def activate(self, up: Any, act: Any) -> Callable[[], Any]:
        """Return silu(gate) · up into `act`, or silu(up) without a gate."""
        silu, torch, width = self.torch.nn.functional.silu, self.torch, self.shape.intermediate
        if self.shape.gated:
            return lambda: torch.mul(silu(up[:, :width]), up[:, width:], out=act)
        return lambda: act.copy_(silu(up))

    def _dense_ops(self, weights: dict[str, Any], tokens: int, h: list[Any]) -> list[Op]:
        added, up, act = self.added[:tokens], self.up[:tokens], self.act[:tokens]
        quantise = 1 if self.fmt == "fp8" else 0
        return [
            Op("ffn_up", lambda: self.project(h[0], weights["ffn_up"], up), 1 + quantise),
            Op("activation", self.activate(up, act), 2),
            Op("ffn_down", lambda: self.project(act, weights["ffn_down"], added), 1 + quantise),
        ]

    def _expert_ops(self, weights: dict[str, Any], tokens: int, h: list[Any]) -> list[Op]:
        """Return the routed feed-forward part.

        The routing is drawn beforehand, evenly at random: a data-dependent one would force the host
        to wait for the device, which engines avoid with kernels of their own.
        """
        torch, shape = self.torch, self.shape
        order = torch.Generator().manual_seed(ROUTING_SEED)
        chosen = torch.rand(tokens, shape.experts, generator=order).topk(shape.top_k).indices
        sort = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=shape.experts)
        ends = counts.cumsum(0).to(dtype=torch.int32, device=self.device)
        source = (sort // shape.top_k).to(self.device)
        count = tokens * shape.top_k
        added, up, act = self.added[:tokens], self.up[:count], self.act[:count]
        grouped = torch.nn.functional.grouped_mm
        share = 1.0 / shape.top_k

        def route() -> None:
            torch.mm(h[0], weights["router"].t()).softmax(-1).topk(shape.top_k)

        def combine() -> None:
            routed = grouped(act, weights["experts_down"], offs=ends)
            added.zero_().index_add_(0, source, routed, alpha=share)

        return [
            Op("route", route, 3),
            Op(
                "experts_up",
                lambda: up.copy_(grouped(h[0][source], weights["experts_up"], offs=ends)),
                3,
            ),
            Op("activation", self.activate(up, act), 2),
            Op("experts_down", combine, 3),
        ]
