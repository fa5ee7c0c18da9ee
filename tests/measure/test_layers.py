"""The layers on CPU PyTorch: what is timed computes what a transformer computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bestserve.errors import InputError
from bestserve.measure.attention import Ragged, SdpaAttention, agree, choose, uniform
from bestserve.measure.layer import LayerStack
from bestserve.measure.shapes import LayerShape

torch = pytest.importorskip(
    "torch", reason="kernels need PyTorch: pip install 'bestserve[measure]'", exc_type=ImportError
)

SMALL = {"hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate": 96}
SHAPES = {
    "dense": LayerShape(**SMALL),
    "ungated": LayerShape(**SMALL, gated=False),
    "window": LayerShape(**SMALL, window=8),
    "experts": LayerShape(**SMALL, experts=4, top_k=2),
}
RAGGED = Ragged((3, 0, 2), (1, 5, 7), (41, 19, 7), (False, True, True))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def stack(shape: LayerShape, fmt: Any = "bf16", layers: int = 2) -> LayerStack:
    return LayerStack(
        torch, shape, layers=layers, device="cpu", fmt=fmt,
        max_tokens=64, kv_tokens=2048, max_context=256,
    )  # fmt: skip


def run(layers: LayerStack, ragged: Ragged, inputs: Any) -> Any:
    """Return the residual stream of a step that starts from `inputs`."""
    layers.residual[: ragged.tokens].copy_(inputs)
    for op in layers.ops(ragged, 256):
        op.run()
    return layers.residual[: ragged.tokens].float().clone()


@pytest.mark.parametrize("window", [0, 8])
def test_attention_is_softmax_over_what_a_query_may_see(window: int) -> None:
    attention = SdpaAttention(torch, window)
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(RAGGED.tokens, 4, 16, generator=generator)
    k, v = (torch.randn(4, 256, 2, 16, generator=generator) for _ in range(2))
    out = attention(q, k, v, attention.prepare(RAGGED))
    first = 0
    for slot, count, end in zip(RAGGED.slots, RAGGED.queries, RAGGED.contexts, strict=True):
        for i in range(count):
            position = end - count + i
            start = max(0, position + 1 - window) if window else 0
            for head in range(4):
                keys = k[slot, start : position + 1, head // 2]
                weights = torch.softmax(keys @ q[first + i, head] / 4.0, 0)
                wanted = weights @ v[slot, start : position + 1, head // 2]
                torch.testing.assert_close(out[first + i, head], wanted, rtol=1e-4, atol=1e-5)
        first += count


@pytest.mark.parametrize("ragged", [uniform(3, 1, 37), uniform(3, 20, 20), uniform(2, 1, 1)])
def test_batched_kernels_equal_the_one_by_one_ones(ragged: Ragged) -> None:
    attention = SdpaAttention(torch)
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(ragged.tokens, 4, 16, generator=generator)
    k, v = (torch.randn(4, 256, 2, 16, generator=generator) for _ in range(2))
    batched = attention(q, k, v, ragged)
    parts = [
        attention(
            q[i * ragged.queries[0] : (i + 1) * ragged.queries[0]],
            k[i : i + 1],
            v[i : i + 1],
            Ragged((0,), ragged.queries[:1], ragged.contexts[:1], ragged.prompts[:1]),
        )
        for i in range(len(ragged.slots))
    ]
    torch.testing.assert_close(batched, torch.cat(parts), rtol=1e-4, atol=1e-5)


def test_a_wrong_kernel_is_not_chosen() -> None:
    class Wrong(SdpaAttention):
        def __call__(self, q: Any, k: Any, v: Any, step: Any) -> Any:
            return super().__call__(q, k, v, step) * 1.1

    device, right = torch.device("cpu"), SdpaAttention(torch)
    arguments = {"device": device, "dtype": torch.bfloat16, "head_dim": 16}
    assert agree(torch, right, SdpaAttention(torch), **arguments)
    assert not agree(torch, right, Wrong(torch), **arguments)
    assert choose(torch, **arguments).name == "sdpa"


@pytest.mark.parametrize("name", ["dense", "ungated", "window"])
def test_decoding_with_the_cache_equals_processing_the_prompt_at_once(name: str) -> None:
    layers = stack(SHAPES[name])
    inputs = torch.randn(20, 64).to(torch.bfloat16)
    whole = run(layers, Ragged((0,), (20,), (20,), (True,)), inputs)
    run(layers, Ragged((0,), (12,), (12,), (True,)), inputs[:12])
    run(layers, Ragged((0,), (7,), (19,), (True,)), inputs[12:19])
    last = run(layers, Ragged((0,), (1,), (20,), (False,)), inputs[19:])
    # bf16: two kernels that sum in another order differ in the third digit.
    assert (last[0] - whole[19]).norm() < 2e-2 * whole[19].norm()


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("fmt", ["bf16", "fp8"])
def test_steps_change_the_stream_and_stay_finite(name: str, fmt: str) -> None:
    if name == "experts" and fmt == "fp8":
        with pytest.raises(InputError, match="fp8 experts"):
            stack(SHAPES[name], fmt)
        return
    layers = stack(SHAPES[name], fmt)
    for ragged in (uniform(8, 1, 100), uniform(1, 64, 64), RAGGED):
        inputs = torch.randn(ragged.tokens, 64).to(torch.bfloat16)
        out = run(layers, ragged, inputs)
        assert out.isfinite().all()
        assert (out - inputs.float()).norm() > 0.1 * inputs.float().norm()


def test_experts_compute_the_mean_of_the_chosen_ones() -> None:
    layers = stack(SHAPES["experts"], layers=1)
    weights = layers.weights[0]
    h = [torch.randn(6, 64).to(torch.bfloat16)]
    for op in layers._expert_ops(weights, 6, h):
        op.run()
    order = torch.Generator().manual_seed(1)
    chosen = torch.rand(6, 4, generator=order).topk(2).indices
    for token in range(6):
        wanted = torch.zeros(64)
        for expert in chosen[token].tolist():
            up = h[0][token].float() @ weights["experts_up"][expert].float()
            act = torch.nn.functional.silu(up[:96]) * up[96:]
            wanted += act @ weights["experts_down"][expert].float() / 2
        assert (layers.added[token].float() - wanted).norm() < 3e-2 * wanted.norm()


def test_layers_are_equal_parts_with_the_kernels_they_say() -> None:
    ops = stack(SHAPES["dense"], layers=3).ops(uniform(2, 1, 10))
    names = [op.name for op in ops]
    assert names[: len(names) // 3] * 3 == names
    assert sum(op.kernels for op in ops) == 3 * 17


def test_steps_that_do_not_fit_are_refused() -> None:
    layers = stack(SHAPES["dense"])
    with pytest.raises(InputError, match="65 tokens in a step of at most 64"):
        layers.ops(uniform(65, 1, 1))
    with pytest.raises(InputError, match="context 300"):
        layers.ops(uniform(1, 1, 300))
    with pytest.raises(InputError, match="slots of 256 tokens in a cache of 2048"):
        layers.ops(uniform(9, 1, 10))
