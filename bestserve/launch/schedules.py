"""A schedule as controllers follow it: KEDA's cron triggers, Kubernetes' cron jobs, and what of it
the autoscalers of Dynamo and llm-d can be told.

KEDA's ScaledObject (keda.sh/v1alpha1) takes the largest of the triggers that are active; a cron
job (batch/v1, `timeZone` since Kubernetes 1.27) sets the scale of a workload. What starts does so a
start time before its window. Workloads are called as `launch --format kubernetes` calls them.
"""

from __future__ import annotations

import math
from zoneinfo import available_timezones

from bestserve.errors import InputError, nearest_names
from bestserve.launch.deployment import checkpoint, engine_family
from bestserve.launch.pods import Json, as_yaml
from bestserve.lowering import lower
from bestserve.results.schedule import Schedule, ScheduledPool
from bestserve.specs.fleet import Fleet
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import ROLE_NAMES

SERVICE = "llm"
DAY = 86_400
KUBECTL = "registry.k8s.io/kubectl:v1.34.1"
"""Image of the cron jobs; any with kubectl does."""

SCALER = "bestserve-schedule"
"""Service account of the cron jobs, with its role."""

BACKENDS = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm"}


def check_controller(problem: Problem | Fleet, controller: str, time_zone: str) -> None:
    """Raise InputError before the work for what a controller cannot be told."""
    if time_zone not in available_timezones():
        near = ", ".join(nearest_names(time_zone, available_timezones()))
        raise InputError(
            f"time zone {time_zone!r:.40} is unknown{f'; nearest: {near}' if near else ''}"
        )
    if controller in ("dynamo", "llm-d") and isinstance(problem, Fleet):
        raise InputError(f"{controller} is told of one service: plan a problem instead of a fleet")
    if isinstance(problem, Problem) and problem.step_time is not None:
        raise InputError("a problem with its own step_time names no model to control")


def controlled(found: Schedule, controller: str, time_zone: str) -> tuple[str, list[str]]:
    """Return YAML for a controller, and what a reader should know before applying it."""
    if controller == "dynamo":
        return as_yaml([_planner(found)]), [
            "Dynamo's planner is told bounds, objectives and its period; it has no schedule, no"
            " cost of a change and no percentiles, and decides by its own forecast"
        ]
    if controller == "llm-d":
        return as_yaml([_variant(found, pool) for pool in found.pools]), [
            "llm-d's autoscaler is told bounds and costs; it has no schedule and decides by "
            "saturation; for the schedule take --controller keda",
            "releases of its VariantAutoscaling differ: this is the one with minReplicas and "
            "maxReplicas",
        ]
    if any(pool.role == "h" for pool in found.pools):
        raise InputError(
            "a hybrid's instance is two workloads, which no controller here starts together; take "
            "the rows of --format csv"
        )
    week = _period(found) > DAY
    remarks = ["the first day is a Monday"] if week else []
    if found.fleet is not None:
        remarks.append("workloads are named after the plan's pools: rename them to yours")
    if controller == "keda":
        return as_yaml([_scaled(found, pool, time_zone) for pool in found.pools]), remarks
    return as_yaml([*_access(), *_jobs(found, time_zone)]), remarks


def _period(found: Schedule) -> int:
    """Return a day or a week [s]. Raises InputError for what cron cannot repeat."""
    total = round(sum(w.duration for w in found.windows))
    if total not in (DAY, 7 * DAY):
        raise InputError(
            f"the schedule covers {total / 3600:.4g} h, cron repeats a day or a week: plan one, "
            "for example with --last 24h"
        )
    return total


def _name(found: Schedule, pool: ScheduledPool) -> str:
    """Return what a pool's workload is called."""
    if found.fleet is None:
        return f"{SERVICE}-{ROLE_NAMES[pool.role]}"
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in pool.name.lower())
    return f"{SERVICE}-{'-'.join(p for p in kept.split('-') if p)}"[:50]


def _target(found: Schedule, pool: ScheduledPool) -> Json:
    """Return the workload that is scaled: machines of one instance make a LeaderWorkerSet."""
    kind, version = "StatefulSet", "apps/v1"
    if found.problem is not None and pool.gpus > lower(found.problem).device.gpus_per_node:
        kind, version = "LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1"
    return {"apiVersion": version, "kind": kind, "name": _name(found, pool)}


def _stretches(found: Schedule, pool: ScheduledPool) -> list[tuple[int, int, int]]:
    """Return when a pool has how many instances: (from, until, instances) [s], ends joined."""
    rows: list[list[int]] = []
    for w in found.windows:
        start, n = round(w.start), w.instances[pool.name]
        if rows and rows[-1][2] == n:
            rows[-1][1] = start + round(w.duration)
        else:
            rows.append([start, start + round(w.duration), n])
    if len(rows) > 1 and rows[0][2] == rows[-1][2]:
        rows[0][0] = rows.pop()[0] - _period(found)
    return [(a, b, n) for a, b, n in rows]


def _cron(seconds: float, period: int, *, early: bool) -> str:
    """Return a moment as cron reads it, whole minutes; early : rounded down rather than up."""
    minutes = int((math.floor if early else math.ceil)(seconds / 60)) % (period // 60)
    day, rest = divmod(minutes, DAY // 60)
    weekday = "*" if period == DAY else str((day + 1) % 7)
    return f"{rest % 60} {rest // 60} * * {weekday}"


def _lead(found: Schedule) -> float:
    return float(found.asked["start_time"])


def _scaled(found: Schedule, pool: ScheduledPool, time_zone: str) -> Json:
    period, rows = _period(found), _stretches(found, pool)
    least = min(n for _, _, n in rows)
    busy = [(start - _lead(found), end, n) for start, end, n in rows if n > least]
    triggers = [
        _trigger(time_zone, (start, min(end, start + period - 60)), period, n)
        for start, end, n in busy or [(0.0, DAY, least)]
    ]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": _name(found, pool)},
        "spec": {
            "scaleTargetRef": _target(found, pool),
            "minReplicaCount": least,
            "maxReplicaCount": max(n for _, _, n in rows),
            # KEDA waits for this, and the autoscaler behind it, before it takes instances away
            "cooldownPeriod": 0,
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}
                }
            },
            "triggers": triggers,
        },
    }


def _trigger(time_zone: str, span: tuple[float, float], period: int, replicas: int) -> Json:
    """Return a trigger; its ends must differ, so it is at least a minute less than the period."""
    metadata = {
        "timezone": time_zone,
        "start": _cron(span[0], period, early=True),
        "end": _cron(span[1], period, early=False),
        "desiredReplicas": str(replicas),
    }
    return {"type": "cron", "metadata": metadata}


def _access() -> list[Json]:
    """Return the service account that may set scales, and its role."""
    rules = [
        {
            "apiGroups": [group],
            "resources": [kinds, f"{kinds}/scale"],
            "verbs": ["get", "patch", "update"],
        }
        for group, kinds in (
            ("apps", "statefulsets"),
            ("leaderworkerset.x-k8s.io", "leaderworkersets"),
        )
    ]
    named = {"metadata": {"name": SCALER}}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", **named},
        {"apiVersion": f"{group}/v1", "kind": "Role", **named, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            **named,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": SCALER},
            "subjects": [{"kind": "ServiceAccount", "name": SCALER}],
        },
    ]


def _jobs(found: Schedule, time_zone: str) -> list[Json]:
    """Return a cron job for each change of each pool: earlier by a start time where it grows."""
    period, jobs = _period(found), []
    for pool in found.pools:
        rows = _stretches(found, pool)
        for i, (start, _, n) in enumerate(rows):
            grows = n > rows[i - 1][2]
            moment = _cron(start - (_lead(found) if grows else 0.0), period, early=grows)
            jobs.append(
                _job(_target(found, pool), f"{_name(found, pool)}-{i}", n, (moment, time_zone))
            )
    return jobs


def _job(target: Json, name: str, replicas: int, when: tuple[str, str]) -> Json:
    kind, group = target["kind"].lower(), target["apiVersion"].rpartition("/")[0]
    resource = kind if group == "apps" else f"{kind}.{group}"
    command = ["kubectl", "scale", f"{resource}/{target['name']}", f"--replicas={replicas}"]
    pod = {
        "serviceAccountName": SCALER,
        "restartPolicy": "OnFailure",
        "containers": [{"name": "scale", "image": KUBECTL, "command": command}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": when[0],
            "timeZone": when[1],
            "concurrencyPolicy": "Replace",
            "startingDeadlineSeconds": 600,
            "jobTemplate": {"spec": {"template": {"spec": pod}}},
        },
    }


def _planner(found: Schedule) -> Json:
    """Return a PlannerConfig of Dynamo's planner (dynamo.planner.config), as far as it goes."""
    assert found.problem is not None
    problem, pools = found.problem, {p.role: p for p in found.pools}
    slo = problem.slo
    assert slo is not None
    lowered = lower(problem)
    config: Json = {
        "mode": "disagg" if "p" in pools else "agg",
        "backend": BACKENDS[engine_family(lowered.engine.name)],
        "optimization_target": "sla",
        "enable_throughput_scaling": True,
        "enable_load_scaling": False,
        # the next decision only once the instances of the last one serve
        "throughput_adjustment_interval": max(math.ceil(_lead(found)), 60),
        "max_gpu_budget": problem.gpus,
        "min_endpoint": min(n for w in found.windows for n in w.instances.values()),
        "model_name": checkpoint(lowered),
    }
    if slo.ttft is not None:
        config["ttft"] = 1e3 * slo.ttft
    if slo.tpot is not None:
        config["itl"] = 1e3 * slo.tpot
    if "p" in pools:
        config["prefill_engine_num_gpu"] = pools["p"].gpus
    config["decode_engine_num_gpu"] = (pools.get("d") or pools["m"]).gpus
    return config


def _variant(found: Schedule, pool: ScheduledPool) -> Json:
    """Return a VariantAutoscaling of llm-d (llmd.ai/v1alpha1) for a pool of its chart."""
    assert found.problem is not None
    counts = [w.instances[pool.name] for w in found.windows]
    role = "prefill" if pool.role == "p" else "decode"
    price = found.problem.price_per_hour
    cost = pool.gpus * (1.0 if price is None else price)
    return {
        "apiVersion": "llmd.ai/v1alpha1",
        "kind": "VariantAutoscaling",
        "metadata": {"name": f"{SERVICE}-{role}"},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": f"{SERVICE}-{role}",
            },
            "modelID": checkpoint(lower(found.problem)),
            "acceleratorType": pool.gpu,
            "acceleratorCount": pool.gpus,
            "minReplicas": min(counts),
            "maxReplicas": max(max(counts), 1),
            "variantCost": f"{cost:.2f}",
        },
    }
