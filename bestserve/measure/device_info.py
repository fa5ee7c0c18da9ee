"""Which device is measured: its name, driver, versions and free memory. Nothing is changed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

from bestserve.errors import InputError

SELF_TEST_BANNER = "self-test on CPU: figures describe this machine's CPU, not a GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What the records say about the measured device.

    kind : "cuda" or "cpu"; memory, cache [B]; free : allocatable now [B]; processors :
    multiprocessors or cores; capability : CUDA compute capability, (0, 0) on a CPU
    """

    kind: str
    index: int
    name: str
    driver: str
    versions: dict[str, str] = field(default_factory=dict)
    memory: int
    free: int
    cache: int
    processors: int
    capability: tuple[int, int] = (0, 0)
    gpus: int = 0

    @property
    def self_test(self) -> bool:
        """Whether the device is a CPU, so that its figures describe no GPU."""
        return self.kind != "cuda"

    @property
    def torch_device(self) -> str:
        """The device as PyTorch names it."""
        return f"cuda:{self.index}" if self.kind == "cuda" else "cpu"

    @property
    def fp8(self) -> bool:
        """Whether the device multiplies fp8 (Ada and later)."""
        return self.capability >= (8, 9)


def describe_device(torch: Any, wanted: str = "auto") -> DeviceInfo:
    """Return the device to measure.

    wanted : "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N"

    Raises InputError when the device asked for is not there.
    """
    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return _cpu(torch)
    kind, _, number = wanted.partition(":")
    if kind not in ("auto", "cuda") or (number and not number.isdigit()):
        raise InputError(f"device {wanted[:40]!r}: write auto, cpu, cuda or cuda:N")
    if not available:
        raise InputError(
            f"device {wanted}: this PyTorch ({torch.__version__}) sees no GPU; check nvidia-smi "
            "and that PyTorch is a CUDA build, or run the self-test with --device cpu"
        )
    index, count = int(number or 0), torch.cuda.device_count()
    if index >= count:
        raise InputError(f"device {wanted}: there are {count} GPUs, numbered from 0")
    return _cuda(torch, index)


def _versions(torch: Any) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("cuda", "hip"):
        if getattr(torch.version, name, None):
            found[name] = str(getattr(torch.version, name))
    return found


def _cpu(torch: Any) -> DeviceInfo:
    memory, free = _host_memory()
    return DeviceInfo(
        kind="cpu",
        index=0,
        name=_cpu_name(),
        driver=f"{platform.system()} {platform.release()}",
        versions=_versions(torch),
        memory=memory,
        free=free,
        cache=32 << 20,
        processors=torch.get_num_threads(),
    )


def _host_memory() -> tuple[int, int]:
    """Return physical and free memory [B]; where the system hides what is free, half of all."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return 4 << 30, 2 << 30  # Windows: enough for the self-test, which needs 0.1 GB
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    if "SC_AVPHYS_PAGES" not in names:
        return total, total // 2
    return total, os.sysconf("SC_AVPHYS_PAGES") * page


def _cpu_name() -> str:
    """Return the processor's own name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.partition(":")[2] for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return (names[0].strip() if names else platform.processor()) or platform.machine()


def _cuda(torch: Any, index: int) -> DeviceInfo:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return DeviceInfo(
        kind="cuda",
        index=index,
        name=properties.name,
        driver=_driver(index),
        versions=_versions(torch),
        memory=int(total),
        free=int(free),
        cache=int(getattr(properties, "L2_cache_size", 0)) or 64 << 20,
        processors=int(properties.multi_processor_count),
        capability=tuple(torch.cuda.get_device_capability(index)),
        gpus=int(torch.cuda.device_count()),
    )


def _driver(index: int) -> str:
    """Return the driver version as nvidia-smi reports it (a query, no setting), or "unknown"."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader", "-i", str(index)]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip() or "unknown"
