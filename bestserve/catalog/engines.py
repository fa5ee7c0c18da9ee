"""Engine records: the bundled presets, those of plug-ins, and the user's own TOML files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

from bestserve.catalog.folders import data_folders
from bestserve.errors import DataError, InputError, UnknownNameError, nearest_names
from bestserve.models.policies import policies
from bestserve.models.step.device import Generation, Precision
from bestserve.models.step.engine import EngineConstants, MemoryRule, MoeKernelChoice
from bestserve.models.step.moe import MoeKernel, MoePath
from bestserve.readers.mappings import read_mapping
from bestserve.readers.paths import looks_like_path, user_path
from bestserve.specs.figure import Figure

WHAT = "engine record"

UNITS: dict[str, str] = {
    "a_step": "s",
    "a_step_moe": "s",
    "a_seq": "s",
    "a_seq_moe": "s",
    "phi": "1",
    "phi_moe": "1",
    "t_req": "s",
    "t_req_moe": "s",
    "t_req_token": "s",
    "gamma": "1",
    "decode_host": "1",
    "prefill_host": "s",
    "prefill_phi": "1",
    "handover": "s",
    "draft_step": "s",
    "draft_pass": "s",
    "launch_time": "s",
    "quantise_launch": "s",
    "allreduce_ring": "s",
    "allreduce_hopper": "s",
    "allreduce_whole": "B",
    "alltoall_latency": "s",
    "alltoall_link": "1",
    "max_num_seqs": "1",
    "max_num_batched_tokens": "tokens",
    "small_gpu_num_seqs": "1",
    "small_gpu_batched_tokens": "tokens",
    "large_gpu_batched_tokens": "tokens",
    "gpu_memory_utilization": "1",
    "memory_kept": "B",
    "memory_kept_token": "B",
    "memory_reserve": "B",
    "memory_sharded": "B",
    "memory_sharded_older": "B",
    "sampler_bytes": "B",
    "expert_rows": "B",
    "rocm_expert_multiple": "1",
    "mxfp4_hidden_multiple": "1",
    "mxfp4_width_multiple": "1",
    "memory_graphs": "B",
    "kv_reserve": "1",
    "kv_block": "tokens",
    "kv_bytes": "B",
    "stream_interval": "tokens",
}
"""The one unit in which each figure is written; a record in any other unit is refused."""

SPLIT = ("decode_host", "prefill_host", "prefill_phi", "handover")
"""What only services split into prefill and decode instances show; without them splitting costs
the host nothing."""

MEMORY = (
    *("memory_sharded", "sampler_bytes", "expert_rows", "rocm_expert_multiple", "memory_graphs"),
    *("memory_sharded_older", "mxfp4_hidden_multiple", "mxfp4_width_multiple"),
    *("memory_kept", "memory_kept_token"),
)
OPTIONAL = (
    *MEMORY,
    "large_gpu_batched_tokens",
    "quantise_launch",
    "allreduce_ring",
    "allreduce_hopper",
    "allreduce_whole",
    "alltoall_latency",
    "alltoall_link",
    "draft_step",
    "draft_pass",
    *SPLIT,
)
KERNEL_UNITS = {
    "compute": "1",
    "memory": "1",
    "launch": "s",
    "rate": "B/s/SM",
    "unpack": "B/s/SM",
    "tile": "tokens",
    "prefill": "1",
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "policy": tuple(policies()),
    "memory_rule": get_args(MemoryRule),
    "moe_path": get_args(MoePath),
    "cuda_graphs": (True, False),
    "kv_groups": (True, False),
    "kv_uneven_pages": (True, False),
    "async_scheduling": (True, False),
    "vendor": ("", "AMD", "NVIDIA"),
}
DEFAULT_CHOICES = {
    "vendor": "", "kv_groups": False, "kv_uneven_pages": True, "async_scheduling": False,
}  # fmt: skip
"""What a record need not say: it runs on GPUs of any maker, holds each layer's cache apart, and
forms a step when the one before has ended."""
COUNTS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "small_gpu_num_seqs",
    "small_gpu_batched_tokens",
    "kv_block",
    "stream_interval",
    "rocm_expert_multiple",
    "mxfp4_hidden_multiple",
    "mxfp4_width_multiple",
)
POSITIVE = ("max_num_seqs", "max_num_batched_tokens", "kv_block", "kv_bytes", "stream_interval")
_DEPTH = 5
"""How many records may extend each other; a longer chain is a mistake or a loop."""


class EngineRow(NamedTuple):
    """One line of an engine record: what it says, in which unit, how it is known, from where."""

    field: str
    value: str | int | float
    unit: str
    kind: str
    source: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """A record as written: `constants` for the models, `rows` with the provenance of figures."""

    constants: EngineConstants
    title: str
    notes: str
    rows: tuple[EngineRow, ...]


def list_engines() -> tuple[str, ...]:
    """Return the names of all known engine presets, sorted."""
    return tuple(sorted(_files()))


def load_engine(name_or_path: str | Path) -> EngineConstants:
    """Return a preset by name, or the user's own TOML.

    Raises UnknownNameError (with the nearest names) or DataError (a file that is no such record).

    >>> load_engine("vllm").policy
    'chunked'
    """
    return engine_record(name_or_path).constants


def engine_record(name_or_path: str | Path) -> EngineRecord:
    """Return a preset with the provenance of its figures; errors as `load_engine`."""
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or looks_like_path(name, ".toml"):
        return _read(user_path(name))
    key = ALIASES.get(name.lower(), name.lower())
    if key not in _files():
        hint = "see `bestserve catalog`, or give the path of a TOML"
        raise UnknownNameError("engine", name, [*list_engines(), *ALIASES], hint)
    return _bundled(key)


ALIASES = {"trtllm": "tensorrt-llm", "trt-llm": "tensorrt-llm", "tensorrtllm": "tensorrt-llm"}


VLLM_ERAS = (
    ((0, 28), "vllm-0.28"),
    ((0, 21), "vllm-0.21"),
    ((0, 20), "vllm-0.20"),
    ((0, 17), "vllm"),
    ((0, 13), "vllm-0.15"),
    ((0, 8), "vllm-0.11"),
)
"""First version of each preset of vLLM; what is older is `vllm-v0`."""


def preset_for(engine: str, version: str) -> str:
    """Return the preset whose memory is that of an engine's version ("0.19.1", "v0.11").

    Engines other than vLLM, and versions that are no numbers, have one preset: the engine itself.

    >>> preset_for("vllm", "0.19.1"), preset_for("vllm", "v0.11.0"), preset_for("sglang", "0.5")
    ('vllm', 'vllm-0.11', 'sglang')
    """
    parts = re.match(r"v?(\d{1,4})\.(\d{1,4})", version.strip())
    if engine.lower() != "vllm" or parts is None:
        return engine
    found = (int(parts[1]), int(parts[2]))
    return next((name for first, name in VLLM_ERAS if found >= first), "vllm-v0")


@lru_cache(maxsize=1)
def _files() -> Mapping[str, Path]:
    """Record name -> file, over all data folders; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in data_folders("engines"):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem.lower(), path)
    return found


@lru_cache(maxsize=64)
def _bundled(name: str) -> EngineRecord:
    return _read(_files()[name])


def _read(path: Path) -> EngineRecord:
    try:
        return _record(path.stem, _tables(path))
    except DataError:
        raise
    except InputError as error:
        raise DataError(f"{WHAT} {path}: {error}") from None


def _tables(path: Path, depth: int = 0) -> dict[str, Any]:
    """Return the tables of a file on top of those of the record that it extends."""
    own = read_mapping(path, WHAT, "toml")
    extends = own.pop("extends", None)
    _check_tables(own)
    sources = own.get("sources", {})
    own["figures"] = {
        name: _figure(name, value, UNITS, sources) for name, value in own.get("figures", {}).items()
    }
    own["moe_kernels"] = [_kernel(k, sources) for k in own.get("moe_kernels", [])]
    if extends is None:
        return own
    if not isinstance(extends, str):
        raise InputError('extends must be the name or path of a record, e.g. "vllm"')
    if depth >= _DEPTH:
        raise InputError(f"more than {_DEPTH} records extend each other; is there a loop?")
    if looks_like_path(extends, ".toml"):
        base_path = path.parent / user_path(extends)
    elif extends.lower() in _files():
        base_path = _files()[extends.lower()]
    else:
        raise UnknownNameError("engine", extends, list_engines())
    base = _tables(base_path, depth + 1)
    merged = {**base, **own}
    merged["figures"] = {**base["figures"], **own["figures"]}
    # First match wins, so own kernels come before inherited ones, in place of those for the same.
    replaced = {_served(choice) for choice, _ in own["moe_kernels"]}
    inherited = [entry for entry in base["moe_kernels"] if _served(entry[0]) not in replaced]
    merged["moe_kernels"] = [*own["moe_kernels"], *inherited]
    return merged


def _check_tables(own: Mapping[str, Any]) -> None:
    known = (*CHOICES, "title", "notes", "sources", "figures", "moe_kernels")
    for key in own:
        if key not in known:
            near = nearest_names(key, known)
            raise InputError(
                f"unknown key {key[:60]!r}{'; nearest: ' if near else ''}{', '.join(near)}"
            )
    for key in ("sources", "figures"):
        if not isinstance(own.get(key, {}), dict):
            raise InputError(f"{key} must be a table")
    kernels = own.get("moe_kernels", [])
    if not isinstance(kernels, list) or not all(isinstance(k, dict) for k in kernels):
        raise InputError("moe_kernels must be a list of tables, [[moe_kernels]]")


def _figure(name: str, value: Any, units: Mapping[str, str], sources: Mapping[str, Any]) -> Figure:
    if name not in units:
        near = nearest_names(name, units)
        raise InputError(
            f"unknown figure {name[:60]!r}{'; nearest: ' if near else ''}{', '.join(near)}"
        )
    if not isinstance(value, dict):
        raise InputError(f"{name}: write {{ value, unit, kind, source }}")
    entry = dict(value)
    if isinstance(entry.get("value"), int) and not isinstance(entry.get("value"), bool):
        entry["value"] = float(entry["value"])
    source = str(entry.get("source", ""))
    head, separator, tail = source.partition("; ")
    if head in sources:
        entry["source"] = f"{sources[head]}{separator}{tail}"
    else:
        head, separator, tail = source.partition(": ")
        if head in sources:
            entry["source"] = f"{sources[head]}{separator}{tail}"
    try:
        figure = Figure(**entry)
    except (InputError, TypeError) as error:
        raise InputError(f"{name}: {str(error).removeprefix('Figure: ')}") from None
    if figure.unit != units[name]:
        raise InputError(
            f"{name} is given in {figure.unit!r}; write it in {units[name]!r} "
            "(units are checked, never converted)"
        )
    return figure


def _served(choice: MoeKernelChoice) -> tuple[str, str, tuple[str, ...]]:
    """Return what a kernel is chosen by."""
    return choice.precision, choice.generation, choice.words


def _kernel(
    entry: Mapping[str, Any], sources: Mapping[str, Any]
) -> tuple[MoeKernelChoice, dict[str, Figure]]:
    figures = {
        name: _figure(name, value, KERNEL_UNITS, sources)
        for name, value in entry.items()
        if name not in ("precision", "generation", "path", "words", "heights", "note")
    }
    precision = _choice("moe_kernels.precision", entry.get("precision"), get_args(Precision))
    generation = _choice(
        "moe_kernels.generation", entry.get("generation", ""), (*get_args(Generation), "")
    )
    path = _choice("moe_kernels.path", entry.get("path"), get_args(MoePath))
    for name, figure in figures.items():
        if figure.value <= 0:
            raise InputError(f"moe_kernels.{name} must be positive")
    words = entry.get("words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError('moe_kernels.words must be a list of settings, ["NAME=1"]')
    heights = entry.get("heights", [])
    whole = isinstance(heights, list) and all(type(h) is int and h > 0 for h in heights)
    if not whole or heights != sorted(set(heights)):
        raise InputError("moe_kernels.heights must be whole numbers, ascending, [8, 16, 32]")
    values: dict[str, Any] = {"heights": tuple(heights)} | {n: f.value for n, f in figures.items()}
    if "tile" in values:
        if values["tile"] != int(values["tile"]):
            raise InputError(f"moe_kernels.tile = {values['tile']} must be a whole number")
        values["tile"] = int(values["tile"])
    choice = MoeKernelChoice(
        precision=precision,
        generation=generation,
        kernel=MoeKernel(path=path, **values),
        words=tuple(words),
    )
    return choice, figures


def _choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed or type(value) is not type(allowed[0]):
        known = ", ".join(str(a) for a in allowed if a != "")
        raise InputError(f"{name} = {str(value)[:60]!r} must be one of {known}")
    return value


def _record(name: str, tables: Mapping[str, Any]) -> EngineRecord:
    figures: Mapping[str, Figure] = tables["figures"]
    missing = [n for n in UNITS if n not in figures and n not in OPTIONAL]
    tables = {**DEFAULT_CHOICES, **tables}
    missing += [n for n in CHOICES if n not in tables]
    if missing:
        raise InputError(f'missing: {", ".join(missing)}; or extend a record: extends = "vllm"')
    values: dict[str, Any] = {n: figure.value for n, figure in figures.items()}
    for count in (name for name in COUNTS if name in values):
        if values[count] != int(values[count]):
            raise InputError(f"{count} = {values[count]} must be a whole number")
        values[count] = int(values[count])
    for positive in POSITIVE:
        if values[positive] <= 0:
            raise InputError(f"{positive} must be positive")
    if not 0 < values["gpu_memory_utilization"] <= 1:
        raise InputError("gpu_memory_utilization must be above 0 and at most 1")
    if not 0 <= values["kv_reserve"] <= 1:
        raise InputError("kv_reserve must be between 0 and 1")
    for factor in ("phi", "phi_moe", "prefill_phi"):
        if values.get(factor, 1.0) < 1:
            raise InputError(f"{factor} must be at least 1")
    choices = {n: _choice(n, tables[n], allowed) for n, allowed in CHOICES.items()}
    kernels: list[tuple[MoeKernelChoice, dict[str, Figure]]] = tables["moe_kernels"]
    constants = EngineConstants(
        name=name, moe_kernels=tuple(choice for choice, _ in kernels), **choices, **values
    )
    rows = [EngineRow(n, str(value), "", "", "") for n, value in choices.items()]
    rows += [EngineRow(n, f.value, f.unit, f.kind, f.source) for n, f in figures.items()]
    for choice, own in kernels:
        label = ".".join(
            ("moe_kernels", choice.precision, choice.generation or "any", *choice.words)
        )
        rows.append(EngineRow(f"{label}.path", choice.kernel.path, "", "", ""))
        rows += [
            EngineRow(f"{label}.{n}", f.value, f.unit, f.kind, f.source) for n, f in own.items()
        ]
    return EngineRecord(
        constants=constants,
        title=str(tables.get("title", name)),
        notes=str(tables.get("notes", "")),
        rows=tuple(rows),
    )
