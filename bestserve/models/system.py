"""What the queues and the simulator are both given: one description of a serving system.

Everything here is numbers: `bestserve.lowering` makes it from models, GPUs and workloads, and a
user with measured coefficients can make it by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.models.policies import Policy, find_policy
from bestserve.models.prefixes import Caching
from bestserve.models.speculation import NOTHING_DRAFTED, Speculation
from bestserve.models.step.step_time import StepTime
from bestserve.models.token_target import TokenTarget
from bestserve.models.token_times import Reader, Readers

Role = Literal["m", "p", "d"]
"""Of an instance: mixed (collocated), prefill or decode."""

Routing = Literal[
    "random",
    "round_robin",
    "least_outstanding",
    "power_of_two",
    "least_kv",
    "reported_kv",
    "session_affine",
    "prefix_hash",
    "prefix_aware",
    "prefix_estimated",
    "least_ttft",
]
ArrivalKind = Literal["gamma", "mmpp", "trace", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One engine instance as a queue sees it (one pipeline lane of it, if pp > 1).

    policy : name of one of `bestserve.models.policies`: "chunked" (decodes first, prompts fill the
        budget; vLLM V1), "prefill_priority" (prompt-only steps first; vLLM V0, SGLang), "mixed"
        (decodes plus whole prompts up to the budget; TensorRT-LLM), …
    max_num_seqs : running sequences at most
    max_num_batched_tokens : tokens per step at most
    kv_capacity_tokens : tokens that the KV cache holds (inf: never binding)
    kv_reserve : share of the output reserved at admission: 0 grows on demand and pre-empts
        (vLLM), 1 reserves the whole output and never evicts (TensorRT-LLM)
    kv_block : tokens per KV block [tokens]
    t_req : front-end time of a request (HTTP, tokeniser, detokeniser), added to TTFT [s]
    t_req_token : front-end time per prompt token, added to TTFT [s/token]
    stream_interval : output tokens per message to the client; the first leaves with the
        `stream_interval`-th [tokens]
    async_scheduling : each step is formed while the one before is under way, so that who arrives
        or ends during a step is known two steps later (vLLM's word; SGLang's overlap schedule)
    speculation : what decodes draft; by default nothing
    """

    step: StepTime
    policy: str = "chunked"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    kv_capacity_tokens: float = float("inf")
    kv_reserve: float = 0.0
    kv_block: int = 1
    t_req: float = 0.0
    t_req_token: float = 0.0
    stream_interval: int = 1
    async_scheduling: bool = False
    speculation: Speculation = NOTHING_DRAFTED

    @property
    def scheduling(self) -> Policy:
        """What the policy does. Raises UnknownNameError."""
        return find_policy(self.policy)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lengths:
    """Input and output lengths as weighted atoms, independent or joint; compared by identity.

    inputs, input_weights : float64[m]; outputs, output_weights : float64[q]; weights sum to 1.
    With `joint`, `inputs` and `outputs` have equal length and row i is one request.
    Lengths are ≥ 1 token; cached prompt tokens (`cached`, float64[m], 0 if empty) skip prefill
    compute but still occupy KV and count as decode context. `kinds` (int[m], empty if there is one)
    says which of `kind_names` a row is of; `priorities` which of these engines take first, the
    least one (vLLM's `priority`); empty or alike: in order of arrival.
    """

    inputs: Floats
    input_weights: Floats
    outputs: Floats
    output_weights: Floats
    joint: bool = False
    cached: Floats = field(default_factory=lambda: np.zeros(0))
    kinds: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kind_names: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()

    @property
    def prioritised(self) -> bool:
        """Whether some kinds go before others."""
        return len(set(self.priorities)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How requests reach the service.

    kind "gamma": renewal with gamma gaps, scv = 1/burstiness (1: Poisson).
    kind "mmpp": Poisson whose rate alternates between `rates` (relative, float64[s]) with mean
        stays `stays` [s] in cyclic order; the time-average of `rates` is scaled to the rate asked.
    kind "trace": replay of `times` [s], rescaled to the rate asked.
    kind "closed": `concurrency` clients send `num_prompts` prompts, all starting at once, each
        sending the next when its last one ends (plus `think` [s]); the rate asked is ignored.
    `cap` limits requests in flight in the open kinds (0: no cap).
    """

    kind: ArrivalKind = "gamma"
    burstiness: float = 1.0
    rates: Floats = field(default_factory=lambda: np.zeros(0))
    stays: Floats = field(default_factory=lambda: np.zeros(0))
    times: Floats = field(default_factory=lambda: np.zeros(0))
    concurrency: int = 0
    num_prompts: int = 0
    think: float = 0.0
    cap: int = 0

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the gaps of kind "gamma" [1]."""
        return 1.0 / self.burstiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """KV transfer from a prefill to a decode instance: latency + tokens · seconds_per_token.

    `concurrent` transfers share the link when `shared`; with `overlap` (0…1) that share of the
    transfer is hidden behind the prefill that produces it (layer-wise transfer).
    """

    latency: float = 0.0
    seconds_per_token: float = 0.0
    shared: bool = False
    overlap: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collocated:
    """`replicas` equal lanes, each doing prefill and decode; `caching`: prefix caches on them."""

    lane: Lane
    replicas: int
    lengths: Lengths
    arrivals: Arrivals = Arrivals()
    routing: Routing = "random"
    caching: Caching | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaggregated:
    """`prefill_replicas` prefill lanes feed `decode_replicas` decode lanes through `transfer`.

    `caching` is the prefill lanes'; a decode lane gets all KV of its requests.
    """

    prefill: Lane
    prefill_replicas: int
    decode: Lane
    decode_replicas: int
    lengths: Lengths
    transfer: Transfer = Transfer()
    arrivals: Arrivals = Arrivals()
    routing: Routing = "random"
    caching: Caching | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """When decodes move between the pools of a hybrid (TaiChi's flowing decode).

    watermark : share of a decode lane's KV cache beyond which decodes with slack leave it [1]
    tpot : objective that they are brought back for, before they miss it [s]
    """

    watermark: float
    tpot: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """Lanes that lean to prefill beside lanes that lean to decode; either kind may do both.

    A prompt is processed on a prefill lane, whence its KV moves to a decode lane, or on a decode
    lane, which then keeps it. Collocated and disaggregated systems are its corners.

    local_prefill_share : share x of the prompts that decode lanes process [1]
    local_decode_share : share y of the others whose answers stay on their prefill lane [1]
    longest_local : prompts of up to so many tokens to compute may be processed on decode lanes;
        they all are, whatever the share, unless the routing is "least_ttft"; 0: of any length
    prefill_queue : requests at the prefill lanes from which longer prompts are local as well; 0:
        never (NVIDIA Dynamo's conditional disaggregation)
    flow : when decodes change lanes on their way; None: never
    routing : "least_ttft" sends a prompt to the lane of either pool that is predicted to answer it
        first; others draw the pool by x and choose a lane within it. Decodes go to the decode lane
        that the routing says, with "least_ttft" the one with the fewest requests.
    """

    prefill: Lane
    prefill_replicas: int
    decode: Lane
    decode_replicas: int
    lengths: Lengths
    local_prefill_share: float = 0.0
    local_decode_share: float = 0.0
    longest_local: int = 0
    prefill_queue: int = 0
    flow: Flow | None = None
    transfer: Transfer = Transfer()
    arrivals: Arrivals = Arrivals()
    routing: Routing = "random"
    caching: Caching | None = None


Apart = Disaggregated | Hybrid
"""Systems of two pools."""

System = Collocated | Disaggregated | Hybrid


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Objectives of one kind of requests, named as in `Lengths.kind_names`."""

    name: str
    target: Target

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of its objectives, after that of the kind: "chat.ttft", or "chat.joint"."""
        names = ("joint",) if self.target.joint else self.target.asked
        return tuple(f"{self.name}.{name}" for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Latency objectives as the models see them; `None`: not asked for.

    ttft, tpot, e2el : thresholds [s]; percentile: share of requests that must meet each one
    (marginal), or all of them together when `joint` (then `percentile` is the attainment).
    Answers of one token meet any TPOT. With `e2el_per_token`, the E2EL threshold grows by so much
    per output token after the first [s]; tokens : objectives on the times of single tokens; tiers :
    further ones of single kinds of requests, which all must hold, too.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2el: float | None = None
    ttft_percentile: float = 0.9
    tpot_percentile: float = 0.9
    e2el_percentile: float = 0.9
    joint: bool = False
    attainment: float = 0.9
    e2el_per_token: float = 0.0
    tokens: TokenTarget | None = None
    tiers: tuple[Tier, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the objectives: latencies that have a threshold, those on tokens, of tiers."""
        latencies = tuple(m for m in ("ttft", "tpot", "e2el") if getattr(self, m) is not None)
        tokens = () if self.tokens is None else self.tokens.asked
        return (*latencies, *tokens, *(name for tier in self.tiers for name in tier.asked))

    @property
    def requirements(self) -> tuple[str, ...]:
        """Names of what a share of requests must meet: objectives, or "joint" all of them."""
        if not self.joint:
            return self.asked
        return ("joint", *(name for tier in self.tiers for name in tier.asked))

    @property
    def reader(self) -> Reader | Readers | None:
        """Whose deadlines runs must watch, if any."""
        own = None if self.tokens is None else self.tokens.reader
        each = tuple(
            (tier.name, tier.target.tokens.reader if tier.target.tokens else own)
            for tier in self.tiers
        )
        some = any(reader is not None for _, reader in each)
        return Readers(others=own, each=each) if some and self.tiers else own

    @property
    def common(self) -> Target:
        """The objectives of all requests alike."""
        return replace(self, tiers=())

    @property
    def for_formulas(self) -> Target:
        """A target whose goodput is near: formulas tell no kinds apart, so the strictest of each.

        Requests that it does not hold may miss it; `common` is what all of them must meet.
        """
        strict = replace(self, tiers=())
        for tier in self.tiers:
            other = tier.target
            for name in ("ttft", "tpot", "e2el"):
                mine, theirs = getattr(strict, name), getattr(other, name)
                if theirs is not None and (mine is None or theirs < mine):
                    share = {name: theirs, f"{name}_percentile": other.required(name)}
                    strict = replace(strict, **share)
        return strict

    @property
    def without_formula(self) -> tuple[str, ...]:
        """Objectives that no formula tells: runs do."""
        tokens = () if self.tokens is None else self.tokens.without_formula
        return (*tokens, *(f"objectives of {tier.name}" for tier in self.tiers))

    def counted(self, name: str) -> bool:
        """Whether an objective is met by a share of requests that no percentile stands for."""
        if name == "joint":
            return True
        return name not in ("ttft", "tpot", "e2el") or (name == "e2el" and self.e2el_per_token > 0)

    def required(self, name: str) -> float:
        """Return the share of requests that must meet a latency's threshold, or "joint" all [1]."""
        kind, dot, own = name.rpartition(".")
        if dot:
            return next(tier.target.required(own) for tier in self.tiers if tier.name == kind)
        if self.joint or name == "joint":
            return self.attainment
        if self.tokens is not None and name in self.tokens.asked:
            return self.tokens.required(name)
        share: float = getattr(self, f"{name}_percentile")
        return share

    @property
    def strictest(self) -> float:
        """The largest share of requests that some requirement names [1]."""
        return max((self.required(m) for m in self.asked), default=self.attainment)
