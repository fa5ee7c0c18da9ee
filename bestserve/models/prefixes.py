"""What requests share, and where it is kept: numbers for the simulator and the hit model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bestserve.arrays import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Law:
    """Weighted values; compared by identity.

    values, weights : float64[m]; weights sum to 1
    """

    values: Floats
    weights: Floats

    @classmethod
    def of(cls, value: float) -> Law:
        """Return the law of one value."""
        return cls(values=np.array([float(value)]), weights=np.ones(1))

    @property
    def mean(self) -> float:
        """Its mean."""
        return float(self.values @ self.weights)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sharing:
    """Which prompts share what; compared by identity.

    A session asks `turns` times; each prompt repeats all before it, answers included, and adds its
    own tokens. Sessions of one group share a prefix beyond that. One turn: plain shared prefixes.

    groups : how many prefixes there are; 0: none is shared between sessions
    prefix : law of their lengths [tokens]
    skew : popularity of the n-th group goes as n^−skew; 0: all alike
    questions : different questions of a group, asked again and again; 0: no two are alike
    own : law of the tokens that a request adds itself [tokens]
    first : likewise, of a session's first request
    output : law of the answers [tokens]
    turns : law of the requests of a session; pause : law of the time from an answer to the next
    one [s], exponential with that law's mean if `pause_random`
    """

    groups: int = 0
    prefix: Law = field(default_factory=lambda: Law.of(0.0))
    skew: float = 0.0
    questions: int = 0
    own: Law
    first: Law
    output: Law
    turns: Law = field(default_factory=lambda: Law.of(1.0))
    pause: Law = field(default_factory=lambda: Law.of(0.0))
    pause_random: bool = False

    @property
    def conversing(self) -> bool:
        """Whether sessions ask more than once."""
        return bool(self.turns.values.max() > 1)

    def popularity(self) -> Floats:
        """Return the share of the sessions that each group gets [groups]."""
        weights = np.arange(1, max(self.groups, 1) + 1, dtype=np.float64) ** -self.skew
        shares: Floats = weights / weights.sum()
        return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A place to which KV blocks are offloaded: host memory, disk, a remote store; or the peers.

    capacity_tokens : what it holds, per lane, or together if `shared` [tokens]
    seconds_per_token : to bring a token's KV back over one lane's link [s]; latency : before [s]
    peers : no place of its own: what the caches of the other lanes hold, fetched from there
    """

    name: str = "host"
    capacity_tokens: float = 0.0
    seconds_per_token: float = 0.0
    latency: float = 0.0
    shared: bool = False
    peers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Caching:
    """A prefix cache on every lane that takes prompts; compared by identity.

    sharing : what the requests share; None: `given` requests bring their own tree
    tiers : where blocks go that the lane's own cache gives up, nearest first
    lag : how late a router that asks the engines learns what they hold [s]
    routed : of a system as formulas know it, the routing whose hits they take, and tiers count as
        room; empty: the system's own
    """

    sharing: Sharing | None = None
    tiers: tuple[Tier, ...] = ()
    lag: float = 0.0
    routed: str = ""
