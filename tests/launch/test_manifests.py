"""Manifests follow the published schemas, stored in `schemas/` with their source and date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bestserve.errors import InputError
from bestserve.launch.formats import written

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema validates the manifests")
referencing = pytest.importorskip("referencing")

SCHEMAS = Path(__file__).parent / "schemas"
CORE = "kubernetes.json#/$defs/"
KINDS = {
    "StatefulSet": CORE + "io.k8s.api.apps.v1.StatefulSet",
    "Deployment": CORE + "io.k8s.api.apps.v1.Deployment",
    "Service": CORE + "io.k8s.api.core.v1.Service",
    "ConfigMap": CORE + "io.k8s.api.core.v1.ConfigMap",
    "PersistentVolumeClaim": CORE + "io.k8s.api.core.v1.PersistentVolumeClaim",
    "LeaderWorkerSet": "leaderworkerset.json",
    "DynamoGraphDeployment": "dynamographdeployment.json",
    "LLMInferenceService": "llminferenceservice.json",
}
KIND = {"compose": "compose.json", "llm-d": "llmd-modelservice.json"}


def validator(reference: str):
    def stored(uri: str):
        content = json.loads((SCHEMAS / uri).read_text())
        return referencing.Resource.from_contents(
            content, default_specification=referencing.jsonschema.DRAFT202012
        )

    registry = referencing.Registry(retrieve=stored)
    return jsonschema.Draft202012Validator({"$ref": reference}, registry=registry)


def documents(deployment, form: str) -> list[dict]:
    """Return a deployment's documents, [] where the format refuses it with a sentence."""
    text = written_or_none(deployment, form)
    assert text is None or "&id0" not in text
    return list(yaml.safe_load_all(text)) if text else []


@pytest.mark.parametrize("form", ["compose", "kubernetes", "dynamo", "kserve", "llm-d"])
def test_manifests_follow_their_schema(printed, form):
    seen = 0
    for deployment in printed.deployments():
        for document in documents(deployment, form):
            reference = KIND.get(form) or KINDS[document["kind"]]
            problems = [
                f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
                for e in validator(reference).iter_errors(document)
            ]
            assert problems == [], (str(deployment.strategy), deployment.lowered.engine.name)
            seen += 1
    assert seen > 5


@pytest.mark.parametrize("reference", sorted({*KINDS.values(), *KIND.values()}))
def test_the_schemas_refuse_what_is_unknown(reference):
    wrong = {"kind": "StatefulSet", "spec": {"replica": 2}, "servicez": {}}
    assert list(validator(reference).iter_errors(wrong))


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda f: f.stem)
def test_schemas_say_where_they_are_from_and_when(file):
    content = json.loads(file.read_text())
    assert "202" in (content.get("$comment") or content["source"])


def pods(document: dict) -> list[dict]:
    spec = document["spec"]
    if document["kind"] == "LeaderWorkerSet":
        template = spec["leaderWorkerTemplate"]
        return [template["leaderTemplate"]["spec"], template["workerTemplate"]["spec"]]
    return [spec["template"]["spec"]] if "template" in spec else []


def test_no_pod_asks_for_more_gpus_than_a_machine_has(printed):
    deployment = printed.deployment("vllm-0.28", "1m-tp1-dp16-ep16", model=printed.EXPERTS)
    found = [p for d in documents(deployment, "kubernetes") for p in pods(d)]
    asked = [p["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for p in found]
    assert asked == [8, 8]
    (group,) = (d for d in documents(deployment, "kubernetes") if d["kind"] == "LeaderWorkerSet")
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 2
    worker = found[1]["containers"][0]
    assert "--headless" in worker["command"]
    assert worker["command"][worker["command"].index("--node-rank") + 1] == "$(LWS_WORKER_INDEX)"
    assert "readinessProbe" not in worker
    assert "readinessProbe" in found[0]["containers"][0]


def test_tokens_are_references_and_images_are_pinned(printed):
    for form in ("kubernetes", "compose", "dynamo", "kserve", "llm-d"):
        for deployment in printed.deployments():
            text = written_or_none(deployment, form)
            if text is None:
                continue
            assert ":latest" not in text
            assert "hf_" not in text
            for line in text.splitlines():
                if line.strip().startswith(("image:", "- image:")):
                    assert line.count(":") >= 2, line


def written_or_none(deployment, form: str) -> str | None:
    try:
        return written(deployment, form)
    except InputError as error:
        refusal = str(error)
    assert "take --format" in refusal or "needs none" in refusal
    return None


def test_amds_machines_get_amds_images_and_resources(printed):
    deployment = printed.deployment("vllm", "1p1d-tp4", hardware="mi300x")
    text = written(deployment, "kubernetes")
    assert "vllm/vllm-openai-rocm:v" in text
    assert "amd.com/gpu: 4" in text
    assert "nvidia" not in text
    sglang = written(printed.deployment("sglang", "2m-tp4", hardware="mi355x"), "kubernetes")
    assert "rocm720-mi35x" in sglang
    assert "/dev/kfd" in written(deployment, "compose")
    with pytest.raises(InputError, match="NVIDIA"):
        written(deployment, "dynamo")


def test_gpus_without_a_published_image_are_refused(printed):
    deployment = printed.deployment("vllm", "1m-tp8", hardware="gaudi-3")
    with pytest.raises(InputError, match="no published image"):
        written(deployment, "kubernetes")
    assert "HABANA_VISIBLE_DEVICES=0,1,2,3" in written(deployment, "commands")


def test_every_kubernetes_instance_is_known_to_the_router(printed):
    found = documents(printed.deployment("sglang", "3p1d-tp4"), "kubernetes")
    (router,) = (d for d in found if d["kind"] == "Deployment")
    words = router["spec"]["template"]["spec"]["containers"][0]["command"]
    assert [words[i + 1] for i, w in enumerate(words) if w == "--prefill"] == [
        f"http://llm-prefill-{i}.llm-prefill:8000" for i in range(3)
    ]
    services = {d["metadata"]["name"]: d["spec"] for d in found if d["kind"] == "Service"}
    assert services["llm-prefill"]["clusterIP"] == "None"
    assert services["llm"]["selector"] == {"app": "llm-router"}


def test_compose_puts_each_machine_into_a_profile(printed):
    hosts = ("10.0.0.1", "10.0.0.2")
    deployment = printed.deployment("vllm", "3p1d-tp4", hosts=hosts)
    (document,) = documents(deployment, "compose")
    services = document["services"]
    assert [services[f"prefill-{i}"]["profiles"] for i in range(3)] == [
        ["10.0.0.1"],
        ["10.0.0.1"],
        ["10.0.0.2"],
    ]
    ports = {n: s["entrypoint"][s["entrypoint"].index("--port") + 1] for n, s in services.items()}
    assert (ports["prefill-0"], ports["prefill-1"], ports["prefill-2"]) == ("8000", "8100", "8000")
    reserved = services["prefill-1"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert reserved["device_ids"] == ["4", "5", "6", "7"]
    assert "CUDA_VISIBLE_DEVICES" not in services["prefill-1"]["environment"]
