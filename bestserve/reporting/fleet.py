"""Figures of a fleet's plan: the pools and what flows between them, budgets, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bestserve.fleet.result import Allocation, PlannedPool
from bestserve.reporting.chart import PALETTE, Chart, Series, rows


@dataclass(frozen=True, slots=True)
class Node:
    """A request class or a pool: its label, its column (0 class, 1 first pool, 2 decode pool),
    and the GPUs it stands on."""

    label: str
    column: int
    gpu: str = ""
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests of a class from one node to another [req/s]; bandwidth : KV that moves [B/s]."""

    source: int
    target: int
    request_class: str
    rate: float
    bandwidth: float = 0.0


@dataclass(frozen=True, slots=True)
class Diagram:
    """A plan as a graph: classes on the left, the pools that serve them, decode on the right."""

    nodes: tuple[Node, ...]
    streams: tuple[Stream, ...]

    def passing(self, node: int) -> float:
        """Return what passes a node: what comes in, or goes out where that is more [req/s]."""
        into = sum(s.rate for s in self.streams if s.target == node)
        return max(into, sum(s.rate for s in self.streams if s.source == node))

    @property
    def summary(self) -> str:
        """The plan in a sentence for each class: where its requests go first."""
        told = [
            f"{s.request_class}: {s.rate:.4g} req/s to {self.nodes[s.target].label}"
            for s in self.streams
            if self.nodes[s.source].column == 0
        ]
        return "; ".join(told)

    @property
    def records(self) -> list[dict[str, Any]]:
        """A row a stream."""
        return [
            {
                "from": self.nodes[s.source].label,
                "to": self.nodes[s.target].label,
                "request_class": s.request_class,
                "rate": s.rate,
                **({"bandwidth": s.bandwidth} if s.bandwidth else {}),
            }
            for s in self.streams
        ]


def fleet_diagram(allocation: Allocation) -> Diagram:
    """Return the graph of a plan.

    The plan fixes flows between GPU types; between the pools of two types they are split in
    proportion to what each pool handles of the class.
    """
    classes = [s.request_class for s in allocation.served]
    nodes = [Node(name, 0) for name in classes]
    first = len(nodes)
    for p in allocation.pools:
        label = f"{p.strategy} {p.model} on {p.gpu}"
        nodes.append(Node(label, 2 if p.role == "decode" else 1, p.gpu, p.gpus))
    streams = [
        Stream(classes.index(name), first + i, name, rate)
        for i, p in enumerate(allocation.pools)
        if p.role != "decode"
        for name, rate in p.classes.items()
    ]
    for flow in allocation.flows:
        name = flow.request_class
        sources = _pools(allocation, "prefill", flow.source, name)
        targets = _pools(allocation, "decode", flow.target, name)
        total = sum(p.classes[name] for _, p in sources), sum(p.classes[name] for _, p in targets)
        for i, source in sources:
            for j, target in targets:
                share = source.classes[name] / total[0] * target.classes[name] / total[1]
                streams.append(
                    Stream(first + i, first + j, name, share * flow.rate, share * flow.bandwidth)
                )
    return Diagram(tuple(nodes), tuple(streams))


def _pools(allocation: Allocation, role: str, gpu: str, name: str) -> list[tuple[int, PlannedPool]]:
    """Return the pools of a role on a GPU type that handle a class, with their places."""
    return [
        (i, p)
        for i, p in enumerate(allocation.pools)
        if p.role == role and p.gpu == gpu and p.classes.get(name, 0.0) > 0
    ]


def plotly_diagram(diagram: Diagram) -> dict[str, Any]:
    """Return the graph as a Plotly Sankey figure: data and layout as plain dictionaries."""
    types = sorted({n.gpu for n in diagram.nodes})
    classes = sorted({s.request_class for s in diagram.streams})
    colour = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(types)}
    tint = {name: PALETTE[i % len(PALETTE)] + "66" for i, name in enumerate(classes)}
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "valuesuffix": " req/s",
        "node": {
            "align": "left",  # pools that pass nothing on stay beside those that do
            "label": [n.label for n in diagram.nodes],
            "color": [colour[n.gpu] for n in diagram.nodes],
            "customdata": [f"{n.gpus} {n.gpu}" if n.gpu else "requests" for n in diagram.nodes],
            "hovertemplate": "%{label}: %{customdata}<extra></extra>",
        },
        "link": {
            "source": [s.source for s in diagram.streams],
            "target": [s.target for s in diagram.streams],
            "value": [s.rate for s in diagram.streams],
            "color": [tint[s.request_class] for s in diagram.streams],
            "customdata": [
                s.request_class + (f", KV {s.bandwidth / 1e9:.3g} GB/s" if s.bandwidth else "")
                for s in diagram.streams
            ],
            "hovertemplate": "%{customdata}: %{value:.4g} req/s<extra></extra>",
        },
    }
    height = 200 + 24 * len(diagram.nodes)
    return {"data": [trace], "layout": {"height": height, "margin": {"l": 10, "r": 10, "t": 20}}}


def curve_chart(points: Sequence[dict[str, float]], unit: str) -> Chart:
    """Return a budget curve or a cost curve with its bounds; points without a plan are left out."""
    known = [p for p in points if math.isfinite(p["objective"])]
    budget = "budget" in points[0]
    name = "budget" if budget else "factor"
    x = tuple(p[name] for p in known)
    plans = Series("plan", x, tuple(p["objective"] for p in known), joined=True)
    bounds = Series("bound", x, tuple(p["bound"] for p in known), joined=True)
    first, last = known[0], known[-1]
    return Chart(
        key="fleet_budget" if budget else "fleet_demand",
        title="What a budget buys" if budget else "What demand costs",
        summary=(
            f"From {first[name]:.4g} to {last[name]:.4g} the plan goes from "
            f"{first['objective']:.4g} to {last['objective']:.4g} {unit}."
        ),
        kind="lines",
        x_label="Cost budget [$/h]" if budget else "Multiple of all rates",
        y_label=unit,
        series=(plans, bounds),
        records=rows(points),
    )


def comparison_chart(allocation: Allocation) -> Chart:
    """Return the plan beside the best uniform strategies that are feasible."""
    entries = [("this plan", allocation.objective, sum(allocation.gpus_used.values()))]
    entries += [
        (f"best uniform, {u.layout}", u.objective, u.gpus)
        for u in allocation.uniform
        if u.objective is not None
    ]
    best = max if allocation.fleet.objective != "min_cost" else min
    others = [worth for _, worth, _ in entries[1:]]
    gain = f" The best uniform one reaches {best(others):.4g}." if others else ""
    return Chart(
        key="fleet_comparison",
        title="Against uniform strategies",
        summary=f"The plan reaches {allocation.objective:.4g} {allocation.unit}.{gain}",
        kind="bars",
        x_label=allocation.unit,
        y_label="",
        series=(
            Series(
                allocation.unit,
                tuple(worth for _, worth, _ in entries),
                tuple(name for name, _, _ in entries),
            ),
        ),
        records=rows(
            [{"strategy": name, "objective": worth, "gpus": n} for name, worth, n in entries]
        ),
    )
