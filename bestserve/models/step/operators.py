"""Every operator of one engine step on one GPU: what it computes, moves, launches, and how long.

`operator_list` walks the layer groups of an architecture under a parallelism and returns one
`Operator` per kind of kernel. Their sum (`bestserve.models.step.breakdown`) is the reference that
the coefficients of `bestserve.models.step.coefficients` are held to.

With dp > 1 the work is that of all data-parallel ranks together, evenly spread: attention and
dense layers see 1/dp of it, expert layers all of it. A lone prompt, which one rank works on while
the others wait, is therefore predicted too fast. With pp > 1 the list runs through all stages,
because a step of a lane passes each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.architecture import Architecture, Attention, Ffn
from bestserve.models.step.attention import (
    decode_attention,
    linear_attention,
    mla_decode,
    mla_prefill,
    prefill_attention,
    sparse_indexer,
)
from bestserve.models.step.collectives import all_reduce, all_to_all, point_to_point
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism, WeightFormat
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.moe import grouped_experts
from bestserve.models.step.products import products
from bestserve.models.step.roofline import Cost, Number, elementwise, gemm, present
from bestserve.models.step.sharding import (
    Matrix,
    attention_matrices,
    expert_tp,
    ffn_matrices,
    kv_heads_per_gpu,
    value_dim,
)
from bestserve.models.step.step_work import StepWork

Bound = Literal["compute", "memory", "dispatch", "communication"]
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "dispatch", "communication")
OperatorKind = Literal["gemm", "attention", "elementwise", "experts", "communication"]
ACTIVATION_BYTES = 2.0
"""Hidden states travel between GPUs in bf16 [B]."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of kernel in a step.

    group : index of the layer group it belongs to, −1 outside the layers
    count : occurrences per step; launches : kernels launched per occurrence without graphs
    cost : of one occurrence, over the vector of steps
    """

    name: str
    kind: OperatorKind
    group: int
    count: int
    launches: float
    cost: Cost

    @property
    def time(self) -> Number:
        """Device time of all occurrences [s]."""
        return self.count * self.cost.time

    @property
    def flops(self) -> Number:
        """Floating-point operations of all occurrences on one GPU [FLOP]."""
        return self.count * self.cost.flops

    @property
    def traffic(self) -> Number:
        """Bytes of memory traffic, or sent over the link by a collective [B]."""
        return self.count * self.cost.traffic

    def bound(self, step: int = 0) -> Bound:
        """Return what the largest share of its time in step `step` waits for."""
        shares = [np.ravel(np.asarray(share)) for share in time_by_bound(self.cost)]
        values = [share[step if share.size > 1 else 0] for share in shares]
        return BOUNDS[int(np.argmax(values))]


def operator_list(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    work: StepWork,
    constants: OperatorConstants = DEFAULT,
) -> tuple[Operator, ...]:
    """Return the operators of a vector of steps, in order of execution within each layer group."""
    context = _Context(arch, device, parallel, formats, engine, work, constants)
    operators: list[Operator] = []
    for index, group in enumerate(arch.groups):
        parts = [*context.attention(group.attention), *context.ffn(group.ffn)]
        operators += [
            Operator(name, kind, index, group.count, launches, cost)
            for name, kind, launches, cost in parts
        ]
    operators += [Operator(n, k, -1, c, 1.0, cost) for n, k, c, cost in context.outside()]
    return tuple(operators)


Part = tuple[str, OperatorKind, float, Cost]


class _Context:
    """The arguments of one `operator_list` call, with costs shared between layer groups."""

    def __init__(
        self,
        arch: Architecture,
        device: Device,
        parallel: Parallelism,
        formats: Formats,
        engine: EngineConstants,
        work: StepWork,
        constants: OperatorConstants,
    ) -> None:
        self.arch, self.device, self.parallel, self.formats = arch, device, parallel, formats
        self.parts = formats.parts
        self.engine, self.constants = engine, constants
        self.hidden = arch.hidden_size
        self.all_tokens = work.tokens
        self.work = work = work.spread(parallel.dp)
        self.tokens = work.tokens
        self.rows = {
            "tokens": self.tokens,
            "reach": work.prompt_reach,
            "decodes": work.sequences_decoding,
            "emitting": work.emitting,
        }
        self.seen: dict[Attention | Ffn, list[Part]] = {}

    def attention(self, attention: Attention) -> list[Part]:
        """Return one attention layer: projections, kernels, all-reduce."""
        if attention.kind == "none":
            return []
        if attention in self.seen:
            return self.seen[attention]
        matrices = attention_matrices(attention, self.hidden, self.parallel.tp)
        own = self.parts.attention
        before = self._products("attention", [m for m in matrices if m.name != "out"], own)
        after = self._products("attention", [m for m in matrices if m.name == "out"], own)
        parts = [
            *before,
            *self._kernels(attention),
            *after,
            *self._reduce("attention", self.tokens),
        ]
        self.seen[attention] = parts
        return parts

    def ffn(self, ffn: Ffn) -> list[Part]:
        """Return one feed-forward layer with the layer's norms: dense, or experts."""
        if ffn in self.seen:
            return self.seen[ffn]
        moe = ffn.kind == "moe"
        width = ffn.shared_intermediate_size if moe else ffn.intermediate_size
        parts: list[Part] = [
            (
                "elementwise",
                "elementwise",
                self.constants.dispatch.attention_launches + self.constants.dispatch.ffn_launches,
                elementwise(
                    self.tokens, self.hidden, width / self.parallel.tp, self.device, self.constants
                ),
            )
        ]
        if moe:
            parts += self._experts(ffn)
        if width:
            prefix = "shared" if moe else "ffn"
            matrices = ffn_matrices(width, ffn.gated, self.hidden, self.parallel.tp)
            parts += self._products(prefix, matrices, self.parts.ffn)
        if ffn.kind != "none":
            parts += self._combine(ffn)
        self.seen[ffn] = parts
        return parts

    def outside(self) -> list[tuple[str, OperatorKind, int, Cost]]:
        """Return the LM head (vocabulary-parallel, emitting sequences only) and pipeline sends."""
        tp, pp = self.parallel.tp, self.parallel.pp
        form = self.parts.head
        head = gemm(
            self.work.emitting,
            self.arch.vocab_size / tp,
            self.hidden,
            self.device,
            form.precision,
            self.constants,
            weight_bytes=form.bytes,
        )
        rest: list[tuple[str, OperatorKind, int, Cost]] = [("lm_head", "gemm", 1, head)]
        if pp > 1:
            # Hidden state and residual; each tensor-parallel rank sends its slice.
            message = 2.0 * self.tokens * self.hidden * ACTIVATION_BYTES / tp
            across = tp * pp > self.device.gpus_per_node
            send = point_to_point(message, self.device, self.constants, across_nodes=across)
            rest.append(("pipeline.send", "communication", pp - 1, send))
        return rest

    def _products(self, prefix: str, matrices: Sequence[Matrix], form: WeightFormat) -> list[Part]:
        launch = self.engine.quantise_launch
        found = products(matrices, self.rows, self.device, form, self.constants, launch)
        return [(f"{prefix}.{name}", kind, 1.0, cost) for name, kind, cost in found]

    def _kernels(self, attention: Attention) -> list[Part]:
        work, device, constants = self.work, self.device, self.constants
        heads = attention.num_heads / self.parallel.tp
        kv_bytes = self.formats.kv_bytes
        if attention.kind == "linear":
            cost = linear_attention(
                work.prompt_tokens,
                work.sequences,
                attention.linear_value_heads / self.parallel.tp,
                attention.linear_key_dim,
                attention.linear_value_dim,
                device,
                constants,
            )
            return [("attention.linear", "attention", 2.0, cost)]
        window = attention.window if attention.kind in ("sliding", "chunked") else 0
        v_dim = value_dim(attention)
        prompts = (work.prompt_tokens, work.longest_chunk)
        if attention.kind == "mla":
            window = attention.index_topk
            qk_dim = attention.qk_nope_head_dim + attention.qk_rope_head_dim
            prefill = mla_prefill(
                work.window_pairs(window), *prompts, heads, qk_dim, v_dim, device, constants
            )
            decode = mla_decode(
                work.window_context(window),
                work.sequences_decoding,
                heads,
                attention.kv_lora_rank,
                attention.qk_rope_head_dim,
                kv_bytes,
                device,
                constants,
            )
        else:
            prefill = prefill_attention(
                work.window_pairs(window),
                *prompts,
                heads,
                attention.head_dim,
                v_dim,
                device,
                constants,
            )
            decode = decode_attention(
                work.window_context(window),
                work.sequences_decoding,
                heads,
                kv_heads_per_gpu(attention, self.parallel.tp),
                attention.head_dim,
                v_dim,
                kv_bytes,
                device,
                constants,
            )
        # One variable-length launch serves prompts and decodes of a mixed step.
        decode = replace(decode, fixed=decode.fixed * (1.0 - present(work.prompt_tokens)))
        parts: list[Part] = [
            ("attention.prefill", "attention", 1.0, prefill),
            ("attention.decode", "attention", 1.0, decode),
        ]
        if attention.kind == "mla":
            parts.insert(0, self._latent(heads, qk_dim))
        if attention.kind == "mla" and attention.index_heads:
            cost = sparse_indexer(
                work.pairs,
                work.context_tokens,
                attention.index_heads,
                attention.index_dim,
                device,
                constants,
            )
            parts.insert(0, ("attention.indexer", "attention", 1.0, cost))
        return parts

    def _latent(self, heads: float, qk_dim: int) -> Part:
        """Return the small kernels of MLA; for prompts, per-head keys are written and read back."""
        c = self.constants
        launches = c.mla.launches
        traffic = c.mla.key_passes * 2.0 * heads * qk_dim * self.work.prompt_reach
        cost = Cost(
            fixed=launches * c.elementwise.launch * present(self.tokens),
            memory=traffic / (c.elementwise.memory * self.device.memory_bandwidth),
            traffic=traffic,
        )
        return "attention.latent", "elementwise", launches, cost

    def _experts(self, ffn: Ffn) -> list[Part]:
        router = gemm(
            self.tokens, ffn.num_experts, self.hidden, self.device, "bf16", self.constants
        )
        generation = self.device.generation
        form = self.parts.experts
        experts = grouped_experts(
            self.all_tokens,
            ffn.routed_hidden_size or self.hidden,
            ffn.intermediate_size / expert_tp(self.parallel),
            ffn.num_experts,
            ffn.top_k,
            self.parallel.ep,
            self.device,
            form.precision,
            self.engine.moe_kernel(form.precision, generation),
            self.constants,
            gated=ffn.gated,
            gamma=self.engine.gamma,
            weight_bytes=form.bytes,
        )
        launches = self.constants.dispatch.moe_launches
        parts: list[Part] = [
            ("experts.router", "gemm", 1.0, router),
            ("experts.grouped", "experts", launches, experts),
        ]
        if self._uses_all_to_all:
            fp8 = form.precision in ("fp8", "fp8_block", "nvfp4")
            sent = self._exchange(ffn, 1.0 if fp8 else ACTIVATION_BYTES)
            parts.insert(1, ("experts.dispatch", "communication", 1.0, sent))
        return parts

    @property
    def _uses_all_to_all(self) -> bool:
        return self.parallel.dp > 1 and self.parallel.ep > 1

    def _exchange(self, ffn: Ffn, element_bytes: float) -> Cost:
        """Return one all-to-all phase; tensor-parallel ranks each carry their share of tokens."""
        return all_to_all(
            self.tokens / self.parallel.tp,
            self.hidden * element_bytes,
            ffn.top_k,
            self.parallel.ep,
            self.device,
            self.constants,
            latency=self.engine.alltoall_latency,
            link=self.engine.alltoall_link,
        )

    def _combine(self, ffn: Ffn) -> list[Part]:
        """Return what joins the feed-forward results of the GPUs."""
        if ffn.kind == "dense" or self.parallel.dp == 1:
            return self._reduce("ffn", self.tokens)
        if self._uses_all_to_all:
            return [
                (
                    "experts.combine",
                    "communication",
                    1.0,
                    self._exchange(ffn, ACTIVATION_BYTES),
                )
            ]
        # Experts split by width over all ranks: all-gather the tokens, reduce-scatter the results.
        gpus = self.parallel.tp * self.parallel.dp
        message = self.all_tokens * self.hidden * ACTIVATION_BYTES
        cost = self._all_reduce(message, gpus)
        return [("experts.reduce", "communication", 2.0, cost)]

    def _reduce(self, prefix: str, tokens: Floats) -> list[Part]:
        if self.parallel.tp == 1:
            return []
        message = tokens * self.hidden * ACTIVATION_BYTES
        cost = self._all_reduce(message, self.parallel.tp)
        return [(f"{prefix}.all_reduce", "communication", 1.0, cost)]

    def _all_reduce(self, message: Floats, gpus: int) -> Cost:
        hopper = self.device.generation == "hopper"
        return all_reduce(
            message,
            gpus,
            self.device,
            self.constants,
            ring=self.engine.allreduce_ring,
            latency=self.engine.allreduce_hopper if hopper else None,
            whole_bytes=self.engine.allreduce_whole,
        )


def time_by_bound(cost: Cost) -> tuple[Number, Number, Number, Number]:
    """Return the shares in the order of `BOUNDS`; a collective's latency is communication."""
    shares = cost.shares()
    memory = shares.memory + shares.activation
    if np.any(cost.link):
        return shares.compute, memory, 0.0, shares.link + shares.launch
    return shares.compute, memory, shares.launch, 0.0
