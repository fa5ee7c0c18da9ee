"""Attention over a slotted KV cache, decode and prompt chunks in one call.

Two kernels with one meaning: `SdpaAttention` (scaled_dot_product_attention, everywhere) and
`VarlenAttention` (FlashAttention for ragged batches, GPUs). `choose` takes the second only after
it has reproduced the first on a small ragged batch on this very device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PAGE = 256
"""Slot lengths are rounded up to this: FlashAttention takes a slot as one page of the cache."""

AGREEMENT = 2e-2
"""Relative difference that two bf16 attention kernels may have (8 bits of mantissa)."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Which tokens a step processes, sequence by sequence.

    slots : cache slot of each sequence; queries : its new tokens; contexts : its tokens in the
    cache once the step is done (queries included); prompts : whether these are prompt tokens
    """

    slots: tuple[int, ...]
    queries: tuple[int, ...]
    contexts: tuple[int, ...]
    prompts: tuple[bool, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the step."""
        return sum(self.queries)

    @property
    def uniform(self) -> bool:
        """Whether all sequences are alike and in slots 0…b−1."""
        return (
            len(set(self.queries)) == 1
            and len(set(self.contexts)) == 1
            and self.slots == tuple(range(len(self.slots)))
        )

    @property
    def uniform_decode(self) -> bool:
        """Whether every sequence adds one token to equally long contexts, in slots 0…b−1."""
        return self.uniform and self.queries[0] == 1

    @property
    def uniform_prompt(self) -> bool:
        """Whether all sequences are equally long whole prompts, in slots 0…b−1."""
        return self.uniform and self.queries[0] == self.contexts[0]


def uniform(batch: int, queries: int, context: int) -> Ragged:
    """Return `batch` equal sequences in slots 0…batch−1: decodes if they have one token each."""
    prompts = (queries > 1 or context == 1,) * batch
    return Ragged(tuple(range(batch)), (queries,) * batch, (context,) * batch, prompts)


class Attention(Protocol):
    """Attend the queries of a step to the cache."""

    name: str
    kernels: int

    def prepare(self, ragged: Ragged) -> Any:
        """Return what `__call__` needs to know about the step."""

    def __call__(self, q: Any, k: Any, v: Any, step: Any) -> Any:
        """Return [tokens, heads, d] for q [tokens, heads, d] and k, v [slots, length, kv, d]."""


class SdpaAttention:
    """scaled_dot_product_attention: batched where all sequences are alike, else one by one."""

    name = "sdpa"
    kernels = 1

    def __init__(self, torch: Any, window: int = 0) -> None:
        self._torch, self._window = torch, window

    def prepare(self, ragged: Ragged) -> Ragged:
        """Return the step itself."""
        return ragged

    def __call__(self, q: Any, k: Any, v: Any, step: Ragged) -> Any:
        """Attend; see `Attention`."""
        sdpa = self._torch.nn.functional.scaled_dot_product_attention
        heads, kv_heads = q.shape[1], k.shape[2]
        if step.uniform_decode:
            batch, end = len(step.slots), step.contexts[0]
            start = max(0, end - self._window) if self._window else 0
            # The query heads that share a KV head become rows of one query: each key is read once.
            rows = q.view(batch, kv_heads, heads // kv_heads, q.shape[2])
            keys, values = (t[:batch, start:end].transpose(1, 2) for t in (k, v))
            return sdpa(rows, keys, values).reshape(q.shape)
        if step.uniform_prompt and not self._window:
            batch, end = len(step.slots), step.contexts[0]
            rows = q.view(batch, end, heads, q.shape[2]).transpose(1, 2)
            keys, values = (t[:batch, :end].transpose(1, 2) for t in (k, v))
            out = sdpa(rows, keys, values, is_causal=True, enable_gqa=heads != kv_heads)
            return out.transpose(1, 2).reshape(q.shape)
        parts, first = [], 0
        for slot, count, end in zip(step.slots, step.queries, step.contexts, strict=True):
            rows = q[first : first + count].transpose(0, 1)[None]
            keys, values = (t[slot, :end].transpose(0, 1)[None] for t in (k, v))
            grouped = heads != kv_heads
            if count == end and not self._window:
                out = sdpa(rows, keys, values, is_causal=True, enable_gqa=grouped)
            else:
                mask = self._mask(count, end, q.device)
                out = sdpa(rows, keys, values, attn_mask=mask, enable_gqa=grouped)
            parts.append(out[0].transpose(0, 1))
            first += count
        return self._torch.cat(parts) if len(parts) > 1 else parts[0]

    def _mask(self, count: int, end: int, device: Any) -> Any:
        """Return bool[count, end]: each query sees itself and what came before (in the window)."""
        torch = self._torch
        query = torch.arange(end - count, end, device=device)[:, None]
        key = torch.arange(end, device=device)[None]
        seen = key <= query
        return seen & (key > query - self._window) if self._window else seen


class VarlenAttention:
    """FlashAttention over ragged queries, each slot being one page of the cache."""

    name = "varlen"
    kernels = 1

    def __init__(self, torch: Any, device: Any, window: int = 0) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._torch, self._device, self._call = torch, device, varlen_attn
        self._window = (window - 1 if window else -1, 0)

    def prepare(self, ragged: Ragged) -> dict[str, Any]:
        """Return the index tensors of the step."""
        torch = self._torch

        def ints(values: Sequence[int]) -> Any:
            return torch.tensor(values, dtype=torch.int32, device=self._device)

        starts, total = [0], 0
        for count in ragged.queries:
            total += count
            starts.append(total)
        return {
            "cu_seq_q": ints(starts),
            "cu_seq_k": None,
            "max_q": max(ragged.queries),
            "max_k": max(ragged.contexts),
            "seqused_k": ints(ragged.contexts),
            "block_table": ints(ragged.slots).view(-1, 1),
        }

    def __call__(self, q: Any, k: Any, v: Any, step: dict[str, Any]) -> Any:
        """Attend; see `Attention`."""
        grouped = q.shape[1] != k.shape[2]
        return self._call(q, k, v, **step, window_size=self._window, enable_gqa=grouped)


def choose(torch: Any, device: Any, *, dtype: Any, head_dim: int, window: int = 0) -> Attention:
    """Return the fastest attention that computes the right thing on `device`."""
    plain = SdpaAttention(torch, window)
    if device.type != "cuda":
        return plain
    try:
        fast = VarlenAttention(torch, device, window)
        if agree(torch, plain, fast, device=device, dtype=dtype, head_dim=head_dim):
            return fast
    except Exception:
        # Whatever a probe raises (no such kernel, another signature, an unsupported device), the
        # plain kernel is right everywhere.
        return plain
    return plain


def agree(
    torch: Any, one: Attention, other: Attention, *, device: Any, dtype: Any, head_dim: int
) -> bool:
    """Return whether two attentions agree on a ragged batch of decodes, a chunk and a prompt."""
    generator = torch.Generator(device="cpu").manual_seed(1)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator).to(device=device, dtype=dtype)

    step = Ragged((3, 0, 2), queries=(1, 5, 7), contexts=(41, 19, 7), prompts=(False, True, True))
    q = draw(step.tokens, 4, head_dim)
    k, v = draw(4, PAGE, 2, head_dim), draw(4, PAGE, 2, head_dim)
    first, second = (a(q, k, v, a.prepare(step)).float() for a in (one, other))
    return bool((first - second).norm() <= AGREEMENT * first.norm())
