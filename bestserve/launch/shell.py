"""Shell commands, machine by machine."""

from __future__ import annotations

import shlex

from bestserve.errors import one_line
from bestserve.launch.deployment import Deployment
from bestserve.launch.process import Process, shell_command
from bestserve.launch.routers import ROUTERS_AS_PACKAGES
from bestserve.specs.strategy import ROLE_NAMES

END = "BESTSERVE_END"
"""Ends a file written by the shell; no line of YAML that we write is this word."""


def commands(deployment: Deployment, bench: tuple[str, ...]) -> str:
    """Return the commands that start a deployment and measure it.

    bench : the benchmark's words; () for none
    """
    strategy = deployment.strategy
    lines = [f"# {remark}" for remark in map(one_line, deployment.remarks)]
    written: set[tuple[str, str]] = set()
    for pool in strategy.pools:
        each = pool.parallelism.gpus
        lines.append(f"# {pool.replicas} x {ROLE_NAMES[pool.role]}, {_gpus(each)} each")
        for instance in deployment.instances:
            if instance.pool is not pool:
                continue
            for host, process in deployment.processes(instance):
                lines += [f"# {instance.name} on {host}", *_files(host, process, written)]
                lines.append(shell_command(process))
    if deployment.router is not None:
        first = deployment.instances[0].seats[0].host
        lines += [f"# router on {first}, clients use {deployment.url}"]
        package = ROUTERS_AS_PACKAGES.get(deployment.router.words[0])
        lines += [f"# pip install {package}"] if package else []
        lines += [*_files(first, deployment.router, written), shell_command(deployment.router)]
    if bench:
        lines += ["# measure it; bestserve validate reads the log", shlex.join(bench)]
    return "\n".join(lines) + "\n"


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count > 1 else ''}"


def _files(host: str, process: Process, written: set[tuple[str, str]]) -> list[str]:
    """Return lines that write a process's files, once a host."""
    lines = []
    for name, content in process.files.items():
        if (host, name) not in written:
            written.add((host, name))
            lines += [f"cat > ./{name} <<'{END}'", content.rstrip("\n"), END]
    return lines
