"""Schedules as controllers follow them: replayed, they give each window its instances."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import bestserve as bs
from bestserve.errors import InputError
from bestserve.launch.schedules import check_controller, controlled

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema validates the manifests")
referencing = pytest.importorskip("referencing")
SCHEMAS = Path(__file__).parent / "schemas"
CORE = "kubernetes.json#/$defs/io.k8s.api."
KINDS = {
    "CronJob": CORE + "batch.v1.CronJob",
    "ServiceAccount": CORE + "core.v1.ServiceAccount",
    "Role": CORE + "rbac.v1.Role",
    "RoleBinding": CORE + "rbac.v1.RoleBinding",
    "ScaledObject": "scaledobject.json",
    "VariantAutoscaling": "variantautoscaling.json",
    None: "dynamoplanner.json",
}
HOUR = 60


def complaints(document):
    """What the published schema of a document's kind has against it."""

    def stored(uri):
        content = json.loads((SCHEMAS / uri).read_text())
        return referencing.Resource.from_contents(
            content, default_specification=referencing.jsonschema.DRAFT202012
        )

    registry = referencing.Registry(retrieve=stored)
    schema = {"$ref": KINDS[document.get("kind")]}
    found = jsonschema.Draft202012Validator(schema, registry=registry).iter_errors(document)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


@pytest.fixture(scope="module")
def found():
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=16,
        workload=bs.Workload(input_len=1000, output_len=250),
        slo="ttft:1000 tpot:50",
    )
    rows = [
        {"start": f"{h:02d}:00", "request_rate": str(r)}
        for h, r in ((0, 4), (6, 40), (9, 90), (15, 60), (21, 4))
    ]
    rows[-1:] = [{"start": f"{h}:00", "request_rate": "4"} for h in (18, 21)]
    options = bs.ScheduleOptions(simulated=False, start_time=300)
    return bs.schedule(problem, rows, strategy="1p1d-tp1", options=options)


@pytest.mark.parametrize("controller", ["keda", "kubernetes", "dynamo", "llm-d"])
def test_controllers_are_told_in_their_published_schema(found, controller):
    documents = list(yaml.safe_load_all(controlled(found, controller, "Europe/Paris")[0]))
    assert documents
    for document in documents:
        assert complaints(document) == []
        spec = document.get("spec", document)
        if controller != "kubernetes":
            assert complaints({**document, "replicas": 2})
            assert complaints({**document, **({"spec": {}} if "spec" in document else {"mode": 1})})
        elif document["kind"] == "CronJob":
            assert complaints({**document, "spec": {**spec, "schedules": "* * * * *"}})


def minute(cron):
    rest, hour, *_ = cron.split()
    return HOUR * int(hour) + int(rest)


def test_kedas_triggers_give_each_window_its_instances_in_time(found):
    text, _ = controlled(found, "keda", "Europe/Paris")
    scaled = {d["metadata"]["name"]: d["spec"] for d in yaml.safe_load_all(text)}
    assert set(scaled) == {"llm-prefill", "llm-decode"}
    for role, spec in scaled.items():
        assert spec["scaleTargetRef"]["kind"] == "StatefulSet"
        spans = [
            (minute(t["metadata"]["start"]), minute(t["metadata"]["end"]), t["metadata"])
            for t in spec["triggers"]
        ]
        assert all(t["timezone"] == "Europe/Paris" for *_, t in spans)
        for w in found.windows:
            wanted = w.instances[role.removeprefix("llm-")]
            for at in (w.start / 60, (w.start + w.duration) / 60 - 6):
                active = [
                    int(t["desiredReplicas"])
                    for a, b, t in spans
                    if (a <= at < b if a < b else at >= a or at < b)
                ]
                assert max([spec["minReplicaCount"], *active]) == wanted, (role, w.clock())
        assert spec["maxReplicaCount"] == max(w.instances[role[4:]] for w in found.windows)


def test_cron_jobs_change_as_the_schedule_does(found):
    text, _ = controlled(found, "kubernetes", "UTC")
    documents = list(yaml.safe_load_all(text))
    kinds = [d["kind"] for d in documents]
    assert kinds[:3] == ["ServiceAccount", "Role", "RoleBinding"]
    jobs = [d for d in documents if d["kind"] == "CronJob"]
    assert len(jobs) == sum(
        w.instances[p] != found.windows[i - 1].instances[p]
        for i, w in enumerate(found.windows)
        for p in w.instances
    )
    for job in jobs:
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        command = pod["containers"][0]["command"]
        role = command[2].rpartition("-")[2]
        at, n = minute(job["spec"]["schedule"]), int(command[3].partition("=")[2])
        starts = {round(w.start / 60): w.instances[role] for w in found.windows}
        earlier = {(m - 5) % (24 * HOUR): k for m, k in starts.items()}
        assert starts.get(at) == n or earlier.get(at) == n


def test_planners_are_told_what_they_have_fields_for(found):
    (planner,) = yaml.safe_load_all(controlled(found, "dynamo", "UTC")[0])
    assert planner["mode"] == "disagg"
    assert (planner["ttft"], planner["itl"]) == (1000.0, 50.0)
    assert planner["throughput_adjustment_interval"] == 300
    assert planner["max_gpu_budget"] == 16
    assert planner["min_endpoint"] == 1
    text, remarks = controlled(found, "llm-d", "UTC")
    variants = {v["metadata"]["name"]: v["spec"] for v in yaml.safe_load_all(text)}
    assert set(variants) == {"llm-prefill", "llm-decode"}
    counts = [w.instances["decode"] for w in found.windows]
    assert variants["llm-decode"]["minReplicas"] == min(counts)
    assert variants["llm-decode"]["maxReplicas"] == max(counts)
    assert "keda" in remarks[0]


def test_what_cron_cannot_repeat_is_refused(found):
    from dataclasses import replace

    with pytest.raises(InputError, match="24h"):
        controlled(replace(found, windows=found.windows[:2]), "keda", "UTC")
    fleet = bs.Fleet(
        gpus=({"hardware": "h100-sxm", "count": 1},),
        models=(
            {
                "model": "meta-llama/Llama-3.1-8B",
                "classes": (
                    {
                        "name": "a",
                        "input_len": 1,
                        "output_len": 1,
                        "slo": "ttft:1000",
                        "rate": 1,
                    },
                ),
            },
        ),
    )
    with pytest.raises(InputError, match="one service"):
        check_controller(fleet, "dynamo", "UTC")
    with pytest.raises(InputError, match="Europe/Paris"):
        check_controller(fleet, "keda", "Europe/Pariss")
    assert json.dumps(found.to_dict())
