"""The formats a deployment is written in."""

from __future__ import annotations

from bestserve.errors import InputError, shown
from bestserve.launch import compose, dynamo, kserve, kubernetes, llmd, shell
from bestserve.launch.deployment import Deployment

_MANIFESTS = {
    "compose": compose.manifest,
    "kubernetes": kubernetes.manifest,
    "dynamo": dynamo.manifest,
    "kserve": kserve.manifest,
    "llm-d": llmd.manifest,
}
FORMATS = ("commands", *_MANIFESTS)


def written(deployment: Deployment, format: str, bench: tuple[str, ...] = ()) -> str:
    """Return a deployment as text.

    format : one of `FORMATS`; bench : the benchmark's words, which shell commands end with
    """
    if format == "commands":
        return shell.commands(deployment, bench)
    if deployment.on_disk:
        raise InputError(
            f"the model is the folder {shown(deployment.model)} of this machine, which containers "
            "do not see: publish it and give its name, or take --format commands"
        )
    return _MANIFESTS[format](deployment)
