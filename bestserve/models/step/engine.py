"""Serving-engine constants as numbers: host overhead, scheduler limits, memory rule, kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from bestserve.models.step.device import Device, Generation, Precision
from bestserve.models.step.moe import MoeKernel, MoePath
from bestserve.models.system import Role

MemoryRule = Literal["total", "static", "free"]

SMALL_GPU_BYTES = 70 * 2**30
"""Below this engines lower their scheduler defaults; for vLLM, which limits sequences there, too,
the A100 counts as small (its PR 17885)."""

LARGE_GPU_BYTES = 160 * 2**30
"""From this on vLLM 0.28 and later raise the tokens of a step."""

LEAST_SHARE = 0.5
"""Of a GPU's memory for weights and cache, whatever a rule would leave [1]; an assumption."""

PCIE = 64e9
"""What PCIe 5.0 x16 carries one way [B/s]; faster links are NVLink and its like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeKernelChoice:
    """The expert kernel of one weight format; `generation` "" matches every GPU.

    words : settings of the deployment without which the engine takes another kernel, as
        "VLLM_MXFP4_USE_MARLIN=1"
    """

    precision: Precision
    generation: Generation | Literal[""]
    kernel: MoeKernel
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConstants:
    """One engine (and version) as the models see it.

    a_step, a_step_moe : host time per step that nothing hides, dense and MoE models [s]
    a_seq, a_seq_moe : host time per sequence in a step [s]
    phi, phi_moe : factor on the device time of steps with prompt tokens [1]
    t_req, t_req_moe : front-end time per request, of dense and MoE deployments [s]
    t_req_token : front-end time per prompt token [s]
    gamma : factor on the fixed time of expert layers [1]
    decode_host : share of a_step and a_seq that an instance which only decodes spends [1]
    prefill_host : host time that an instance which only prefills spends on top per request [s]
    prefill_phi : most that phi is on an instance which only prefills; None: as elsewhere [1]
    draft_step : what each step with drafts takes besides drafting and verifying, for rejection
        sampling and its bookkeeping [s]; draft_pass : least time of one pass of what drafts, which
        its host takes to launch [s]
    handover : from the end of a prefill to the decode instance's next batch, besides the KV
        transfer [s]
    moe_path, moe_kernels : activation-pass path of formats not listed, and listed kernels
    kernel_words : environment variables and flags of this deployment that choose kernels
    quantise_launch : fixed time of the pass that quantises the input of a per-tensor fp8 GEMM,
        where it is a kernel of its own and not fused with the one ahead [s]
    allreduce_ring : latency per GPU of the library's ring, which takes over from a one-shot
        all-reduce where it is faster; 0: a two-shot kernel at every size [s]
    allreduce_hopper : latency of its all-reduce kernel on Hopper, for any number of GPUs; None: the
        universal one [s]
    allreduce_whole : message up to which it reduces in one shot over more than 4 GPUs all the same
        [B]
    alltoall_latency, alltoall_link : of its expert all-to-all; None: universal prior [s, 1]
    vendor : the only maker of GPUs that it runs on; "": any
    cuda_graphs : False launches every kernel from the host
    launch_time : host time per launch without graphs; 0 takes the device's [s]
    memory_rule : "total": KV = u·memory − weights − activations − reserve (vLLM); "static":
        KV = u·(memory − reserve) − weights (SGLang); "free": KV = u·(memory − weights −
        activations − reserve) (TensorRT-LLM), with u = gpu_memory_utilization
    memory_kept, memory_kept_token : what it takes off gpu_memory_utilization by its own rule, in
        all and for each token of a step [B]
    memory_reserve : CUDA context, graphs, communication buffers of one GPU [B]
    memory_sharded : what is added to it where tensor parallelism needs communication buffers over
        NVLink or its like, `memory_sharded_older` on generations before Hopper; over PCIe alone
        the buffers are as small as on one GPU [B]
    sampler_bytes : what sampling takes of the profiling run's memory per sequence and vocabulary
        entry: logits in fp32, sorted, with their indices [B]
    expert_rows : bytes per routed row and hidden element of the expert kernels' workspaces [B]
    rocm_expert_multiple : to which the width of an expert is padded on AMD's GPUs; 0: not
    mxfp4_hidden_multiple, mxfp4_width_multiple : to which the sides of MXFP4 experts are padded on
        NVIDIA's; 0: not
    memory_graphs : CUDA graphs, where the engine counts them before it sizes the cache [B]
    kv_groups : the cache is held in groups of layers of one block size (vLLM V1)
    kv_uneven_pages : layers with pages of different size share such groups; without, a model that
        has them holds every layer's full context
    kv_events : the engine reports its cache to a router, or others fetch from it, for which vLLM
        gives its groups up: layers with windows hold every token
    kv_bytes : bytes per KV element by default [B]
    small_gpu_num_seqs, small_gpu_batched_tokens : the engine's own defaults on GPUs below 70 GiB
        and on the A100; 0: the same as elsewhere
    large_gpu_batched_tokens : its own default on GPUs of 160 GiB and more; 0: as elsewhere
    async_scheduling : whether it forms each step while the one before runs, where nobody says
        otherwise
    Other scheduler fields as in `bestserve.models.system.Lane`.
    """

    name: str
    policy: str
    a_step: float
    a_seq: float
    a_step_moe: float
    a_seq_moe: float
    phi: float
    phi_moe: float
    t_req: float
    t_req_moe: float
    t_req_token: float
    gamma: float
    moe_path: MoePath
    moe_kernels: tuple[MoeKernelChoice, ...] = ()
    kernel_words: tuple[str, ...] = ()
    decode_host: float = 1.0
    prefill_host: float = 0.0
    prefill_phi: float | None = None
    handover: float = 0.0
    draft_step: float = 0.0
    draft_pass: float = 0.0
    quantise_launch: float = 0.0
    allreduce_ring: float = 0.0
    allreduce_hopper: float | None = None
    allreduce_whole: float = 0.0
    alltoall_latency: float | None = None
    alltoall_link: float | None = None
    vendor: str = ""
    cuda_graphs: bool = True
    launch_time: float = 0.0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    small_gpu_num_seqs: int = 0
    small_gpu_batched_tokens: int = 0
    large_gpu_batched_tokens: int = 0
    gpu_memory_utilization: float = 0.9
    memory_rule: MemoryRule = "total"
    memory_kept: float = 0.0
    memory_kept_token: float = 0.0
    memory_reserve: float = 3e9
    memory_sharded: float = 0.0
    memory_sharded_older: float = 0.0
    sampler_bytes: float = 8.0
    expert_rows: float = 0.0
    rocm_expert_multiple: int = 0
    mxfp4_hidden_multiple: int = 0
    mxfp4_width_multiple: int = 0
    memory_graphs: float = 0.0
    kv_groups: bool = False
    kv_uneven_pages: bool = True
    kv_events: bool = False
    kv_reserve: float = 0.0
    kv_block: int = 16
    kv_bytes: float = 2.0
    stream_interval: int = 1
    async_scheduling: bool = False

    def moe_kernel(self, precision: Precision, generation: Generation) -> MoeKernel:
        """Return the expert kernel for a format on a GPU generation, or the default path."""
        for choice in self.moe_kernels:
            fits = choice.precision == precision and choice.generation in ("", generation)
            if fits and set(choice.words) <= set(self.kernel_words):
                return choice.kernel
        return MoeKernel(path=self.moe_path)

    def for_device(self, device: Device) -> EngineConstants:
        """Return the engine with the limits and the share of memory that it takes by default here.

        They are settled then: asked again, the engine keeps what it has.
        """
        limited = self._limited(device)
        kept = limited.memory_kept + limited.memory_kept_token * limited.max_num_batched_tokens
        if kept == 0.0:
            return limited
        share = max(self.gpu_memory_utilization - kept / device.visible_bytes, LEAST_SHARE)
        settled = replace(limited, memory_kept=0.0, memory_kept_token=0.0)
        return replace(settled, gpu_memory_utilization=round(share, 3))

    def _limited(self, device: Device) -> EngineConstants:
        if device.memory_bytes >= LARGE_GPU_BYTES and self.large_gpu_batched_tokens:
            return replace(
                self,
                max_num_batched_tokens=self.large_gpu_batched_tokens,
                large_gpu_batched_tokens=0,
            )
        counts_as_small = device.generation == "ampere" and self.small_gpu_num_seqs
        if device.memory_bytes >= SMALL_GPU_BYTES and not counts_as_small:
            return self
        return replace(
            self,
            max_num_seqs=self.small_gpu_num_seqs or self.max_num_seqs,
            max_num_batched_tokens=self.small_gpu_batched_tokens or self.max_num_batched_tokens,
            small_gpu_num_seqs=0,
            small_gpu_batched_tokens=0,
        )

    def communication_bytes(self, device: Device) -> float:
        """Return what communicators of an instance over several GPUs take on each [B]."""
        if device.link_bandwidth <= PCIE:
            return 0.0
        older = device.generation in ("volta", "turing", "ampere", "ada")
        return self.memory_sharded_older if older else self.memory_sharded

    @property
    def knows_splitting(self) -> bool:
        """Whether anything is known of what prefill and decode apart cost its host, or save."""
        known = self.decode_host != 1 or self.prefill_host > 0 or self.handover > 0
        return known or self.prefill_phi is not None

    def for_role(self, role: Role) -> EngineConstants:
        """Return the engine with the host time and φ of an instance in this role.

        The role is settled then: asked again, the engine keeps what it has.
        """
        if role == "m":
            return self
        settled = replace(self, decode_host=1.0, prefill_host=0.0, prefill_phi=None)
        if role == "d":
            return replace(
                settled,
                a_step=self.a_step * self.decode_host,
                a_step_moe=self.a_step_moe * self.decode_host,
                a_seq=self.a_seq * self.decode_host,
                a_seq_moe=self.a_seq_moe * self.decode_host,
            )
        most = math.inf if self.prefill_phi is None else self.prefill_phi
        # A step holds a request's prompt, whole or a chunk, so the time per request is one per
        # sequence and step.
        return replace(
            settled,
            a_seq=self.a_seq + self.prefill_host,
            a_seq_moe=self.a_seq_moe + self.prefill_host,
            phi=min(self.phi, most),
            phi_moe=min(self.phi_moe, most),
        )
