"""What is measured: points in the order that makes an interrupted campaign most useful."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bestserve.measure.shapes import Format, LayerShape

Kind = Literal[
    "launch",
    "gemm",
    "decode_attention",
    "prefill_attention",
    "norm",
    "activation",
    "layer_decode",
    "layer_prefill",
    "dispatch",
    "all_reduce",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Mode = Literal["eager", "graph"]


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to time: its kind and its sizes, in a fixed order."""

    kind: Kind
    sizes: tuple[tuple[str, int | str], ...] = ()

    @property
    def key(self) -> str:
        """Name of the point in the journal, e.g. `gemm m=16 n=4096 k=4096 fmt=bf16`."""
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.sizes)])

    def __getitem__(self, name: str) -> int:
        """Return an integer size by name."""
        return int(dict(self.sizes)[name])

    def text(self, name: str) -> str:
        """Return a size that is a word (mode, format, projection)."""
        return str(dict(self.sizes)[name])


def point(kind: Kind, **sizes: int | str) -> Point:
    """Return a point with the sizes in the order given."""
    return Point(kind, tuple(sizes.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Sizes to measure.

    tokens : rows of GEMMs and elementwise kernels
    batches, contexts : of decodes; kv_tokens : batch × context at most
    prompts : tokens of prompts; prompt_batches : prompts at once, for attention alone
    layers : in the stack; modes : eager and, where the device has them, CUDA graphs
    formats : of GEMM weights; messages : bytes of all-reduces
    """

    tokens: tuple[int, ...] = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    contexts: tuple[int, ...] = (512, 2048, 8192)
    prompt_batches: tuple[int, ...] = (1, 4)
    prompts: tuple[int, ...] = (128, 512, 1024, 2048, 4096, 8192)
    kv_tokens: int = 524_288
    layers: int = 4
    modes: tuple[Mode, ...] = ("eager", "graph")
    formats: tuple[Format, ...] = ("bf16",)
    messages: tuple[int, ...] = tuple(1 << e for e in range(13, 27, 2))

    def decodes(self) -> list[tuple[int, int]]:
        """Return the (batch, context) pairs whose cache fits `kv_tokens`."""
        return [(b, c) for b in self.batches for c in self.contexts if b * c <= self.kv_tokens]


SELF_TEST = Grid(
    tokens=(1, 4, 16, 64, 256),
    batches=(1, 4, 16),
    contexts=(64, 256, 1024),
    prompts=(64, 128, 256),
    kv_tokens=16_384,
    layers=2,
    modes=("eager",),
    messages=(1 << 13, 1 << 17),
)
"""Small enough for a CPU to finish in seconds."""


def points(shape: LayerShape, grid: Grid, gpus: int = 1) -> list[Point]:
    """Return all points, the kinds taking turns and each kind going from coarse to fine.

    Stopped anywhere, the journal then covers every kind over its whole range.
    """
    lists: dict[Kind, list[Point]] = {
        "launch": [point("launch")],
        "gemm": [
            point("gemm", name=name, m=m, n=n, k=k, fmt=fmt)
            for fmt in grid.formats
            for name, (n, k) in shape.gemms().items()
            for m in grid.tokens
        ],
        "decode_attention": [
            point("decode_attention", batch=b, context=c) for b, c in grid.decodes()
        ],
        "prefill_attention": [
            point("prefill_attention", batch=b, prompt=q)
            for b in grid.prompt_batches
            for q in grid.prompts
            if b * q <= max(grid.prompts)
        ],
        "norm": [point("norm", m=m) for m in grid.tokens],
        "activation": [point("activation", m=m) for m in grid.tokens],
        "layer_decode": [
            point("layer_decode", batch=b, context=c, mode=mode)
            for b, c in grid.decodes()
            for mode in grid.modes
        ],
        "layer_prefill": [
            point("layer_prefill", prompt=q, mode=mode) for q in grid.prompts for mode in grid.modes
        ],
        "dispatch": [point("dispatch", batch=b, context=grid.contexts[0]) for b in grid.batches],
        "all_reduce": [
            point("all_reduce", gpus=g, bytes=size) for g in _groups(gpus) for size in grid.messages
        ],
    }
    return list(_turns([coarse_first(lists[kind]) for kind in KINDS]))


def _groups(gpus: int) -> Iterator[int]:
    group = 2
    while group <= gpus:
        yield group
        group *= 2


def coarse_first(items: Sequence[Point]) -> list[Point]:
    """Return the items ends first, then ever finer midpoints.

    >>> [p["m"] for p in coarse_first([point("norm", m=m) for m in range(5)])]
    [0, 4, 2, 1, 3]
    """
    if len(items) < 3:
        return list(items)
    order, spans = [0, len(items) - 1], [(0, len(items) - 1)]
    while spans:
        low, high = spans.pop(0)
        middle = (low + high) // 2
        if middle in (low, high):
            continue
        order.append(middle)
        spans += [(low, middle), (middle, high)]
    return [items[i] for i in order]


def _turns(lists: Iterable[list[Point]]) -> Iterator[Point]:
    """Yield from all lists so that each progresses in proportion to its length."""
    ranked = [
        ((i + 0.5) / len(items), turn, item)
        for turn, items in enumerate(lists)
        for i, item in enumerate(items)
    ]
    for _, _, item in sorted(ranked, key=lambda r: (r[0], r[1])):
        yield item
