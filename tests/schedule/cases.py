"""Small instances of the problem, and all their ways, which share nothing with the programme."""

from __future__ import annotations

import itertools

import numpy as np

from bestserve.fleet.schedule.terms import Pools, Prices, Terms, Times

FLAGS = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "8",
    "--input-len", "lognormal:1000,1", "--output-len", "lognormal:250,1",
    "--goodput", "ttft:1000", "tpot:50",
]  # fmt: skip


def terms(seed: int, windows: int = 4, **changes: object) -> Terms:
    """One split offer on random windows."""
    rng = np.random.default_rng(seed)
    given = {
        "capacity": rng.uniform(1, 3, (2, windows)),
        "rates": rng.uniform(1, 5, (1, windows)),
        "durations": rng.choice([300.0, 600.0, 900.0], windows),
        "pools": Pools.alone(2, 4),
        "times": Times(300.0),
    }
    return Terms(**(given | changes))  # type: ignore[arg-type]


def fleet_terms(seed: int, windows: int = 3, **changes: object) -> Terms:
    """A stream with a collocated offer on one GPU type and one on another, and a second stream."""
    rng = np.random.default_rng(seed)
    given = {
        "capacity": rng.uniform(1, 3, (3, windows)) * np.array([[1.0], [2.2], [1.0]]),
        "rates": rng.uniform(1, 3, (2, windows)),
        "durations": rng.choice([300.0, 900.0], windows),
        "pools": Pools(
            gpus=np.array([1, 2, 1]),
            option=np.array([0, 1, 2]),
            stream=np.array([0, 0, 1]),
            gpu_type=np.array([0, 1, 1]),
        ),
        "times": Times(120.0),
    }
    return Terms(**(given | changes))  # type: ignore[arg-type]


def ways(asked: Terms, most: int) -> np.ndarray:
    """All counts up to `most` that every window can carry by itself [way, pool, window]."""
    pools, windows = asked.capacity.shape
    columns = [
        [way for way in itertools.product(range(most + 1), repeat=pools) if carries(asked, way, w)]
        for w in range(windows)
    ]
    picked = np.meshgrid(*(np.arange(len(c)) for c in columns), indexing="ij")
    parts = [np.array(c)[i.ravel()] for c, i in zip(columns, picked, strict=True)]
    return np.stack(parts, axis=2)


def carries(asked: Terms, way: tuple[int, ...], w: int) -> bool:
    """Whether so many instances carry a window, each stream by the sum of its offers."""
    pools = asked.pools
    up = [working(asked, p, n) for p, n in enumerate(way)]
    for stream in range(asked.rates.shape[0]):
        able = 0.0
        for option in np.flatnonzero(pools.stream == stream):
            members = np.flatnonzero(pools.option == option)
            able += min(up[p] * asked.capacity[p, w] for p in members)
        wanted = asked.rates[stream, w] * (1 + asked.headroom)
        if able < max(wanted, 1e-12) - 1e-9 or able == 0:
            return False
    return True


def working(asked: Terms, pool: int, n: int) -> int:
    """Of n instances, as many as are up often enough, by summing the binomial."""
    if asked.reliability is None:
        return n
    up, wanted = float(asked.reliability.up[pool]), asked.reliability.availability
    tail, k = 0.0, n
    while k > 0:
        tail += _choose(n, k) * up**k * (1 - up) ** (n - k)
        if tail >= wanted - 1e-12:
            return k
        k -= 1
    return 0


def _choose(n: int, k: int) -> float:
    return float(np.prod([(n - i) / (i + 1) for i in range(k)])) if k else 1.0


def allowed(asked: Terms, counts: np.ndarray) -> np.ndarray:
    """Whether counts [way, pool, window] keep to least stays, changes and GPUs [way]."""
    before = np.roll(counts, 1, axis=2)
    good = np.ones(counts.shape[0], dtype=bool)
    if asked.most_changes is not None:
        good &= np.abs(counts - before).sum(axis=1).max(axis=1) <= asked.most_changes
    for t, most in enumerate([] if asked.most_gpus is None else asked.most_gpus):
        of_type = asked.pools.gpu_type == t
        beside = np.maximum(counts, before)[:, of_type]  # what starts runs beside what stops later
        good &= np.einsum("npw,p->nw", beside, asked.pools.gpus[of_type]).max(axis=1) <= most
    for budget in asked.budgets:
        beside = np.maximum(counts, before)
        each = (asked.pools.gpus * budget.per_gpu[asked.pools.gpu_type])[None, :, None]
        good &= (beside * each).sum(axis=1).max(axis=1) <= budget.most + 1e-9
    if asked.least is not None:
        least = np.asarray(asked.least)[None, :, None]
        good &= ((counts == 0) | (counts >= least)).all(axis=(1, 2))
    if asked.most_pools is not None:
        good &= counts.any(axis=2).sum(axis=1) <= asked.most_pools
    if asked.times.stay > 0:
        rows, which = np.unique(counts.reshape(-1, counts.shape[2]), axis=0, return_inverse=True)
        kept = np.array([_stays(asked, row) for row in rows])
        good &= kept[which.reshape(counts.shape[:2])].all(axis=1)
    return good


def _stays(asked: Terms, row: np.ndarray) -> bool:
    """Walk through the day three times; who came first goes first."""
    starts = np.cumsum(asked.durations) - asked.durations
    since: list[float] = []
    for lap in range(3):
        for w, n in enumerate(row):
            now = lap * asked.durations.sum() + starts[w]
            while len(since) > n:
                if now - since.pop(0) < asked.times.stay - 1e-9:
                    return False
            since += [now if lap or w else -np.inf] * (n - len(since))
    return True


def price(asked: Terms, counts: np.ndarray) -> np.ndarray:
    """The bill of counts [way, pool, window], in pieces: reserved GPUs first [way]."""
    prices = asked.prices or Prices(np.ones(asked.pools.types), np.full(asked.pools.types, np.nan))
    total = np.zeros(counts.shape[0])
    for t in range(asked.pools.types):
        of_type = asked.pools.gpu_type == t
        weigh = lambda n, of=of_type: np.einsum("npw,p->nw", n[:, of], asked.pools.gpus[of])  # noqa: E731
        used = weigh(counts)
        rising = weigh(np.maximum(np.roll(counts, -1, axis=2) - counts, 0))
        lead = np.minimum(asked.times.start, asked.durations)
        bills = []
        for reserved in range(int(used.max()) + 1) if np.isfinite(prices.reserved[t]) else [0]:
            hours = np.maximum(used - reserved, 0) @ (asked.durations - lead)
            hours = hours + np.maximum(used + rising - reserved, 0) @ lead
            hours = hours + rising @ (asked.times.start - lead)
            cost = prices.on_demand[t] * hours / 3600
            if reserved:
                cost = cost + reserved * prices.reserved[t] * asked.durations.sum() / 3600
            bills.append(cost)
        total += np.min(bills, axis=0)
    return total
