"""GPU records: the bundled ones, those of plug-ins, and the user's own TOML files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bestserve.catalog import gpu_names
from bestserve.catalog.folders import data_folders, package_folder
from bestserve.catalog.machines import machine_gpu
from bestserve.errors import DataError, InputError, UnknownNameError
from bestserve.readers.mappings import read_mapping
from bestserve.readers.paths import looks_like_path, shown, user_path
from bestserve.specs.hardware import Hardware, hardware_from_record

WHAT = "hardware record"
_DEPTH = 5
"""How many records may extend each other; a longer chain is a mistake or a loop."""


SLICES = (
    "slices of a GPU (MIG) are not modelled; name the whole board, or write a record that extends "
    "it with the slice's share of compute, memory and bandwidth"
)
_REASON = 300  # characters of a refusal; what it quotes is the stranger's

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,80}")


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a spelling of a GPU means.

    hardware : the record, or None
    candidates : names of the records that fit if it is ambiguous
    note : one sentence for the reader
    """

    hardware: Hardware | None
    candidates: tuple[str, ...] = ()
    note: str = ""


def list_hardware() -> tuple[str, ...]:
    """Return the names of all known GPU records, sorted."""
    return tuple(sorted(_files()))


def load_hardware(name_or_path: str | Path) -> Hardware:
    """Return the record of a bundled GPU by name or usual spelling, or of the user's own TOML.

    Raises UnknownNameError (with the nearest names), InputError (ambiguous spelling) or DataError
    (a file that is no hardware record).
    """
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or looks_like_path(name, ".toml"):
        return _load_file(user_path(name))
    found = resolve_hardware(name)
    if found.hardware is not None:
        return found.hardware
    if found.note == SLICES:
        raise InputError(f"hardware {name[:120]!r}: {SLICES}")
    if found.candidates:
        raise InputError(
            f"hardware {name[:120]!r} is ambiguous: it does not say which of "
            f"{len(found.candidates)} boards; name one of {', '.join(found.candidates)}"
        )
    raise UnknownNameError(
        "hardware", name, list_hardware(), "see `bestserve catalog`, or give the path of a TOML"
    )


@lru_cache(maxsize=1024)
def resolve_hardware(name: str) -> Resolution:
    """Say which record a spelling names, without guessing.

    Exact record names, clouds' machine types and the records' own aliases come first, then tokens
    (`gpu_names`). A spelling that fits several records gives `candidates` and no hardware.
    """
    if _NAME.fullmatch(name) and (package_folder("hardware") / f"{name.lower()}.toml").is_file():
        return Resolution(_bundled(name.lower()))  # without looking for plug-ins: this is common
    if name.lower() in _files():
        return Resolution(_bundled(name.lower()))
    machine = machine_gpu(name[:200])
    if machine:
        return Resolution(_bundled(machine), note=f"{name!r} is a machine with {machine}")
    if gpu_names.is_slice(name[:200]):
        return Resolution(None, note=SLICES)
    key = _alias_key(name[:200])
    if not key:
        return Resolution(None, note="no GPU is named")
    for record in list_hardware():
        if key in _aliases(record):
            return Resolution(_bundled(record), note=f"{name!r} is an alias of {record}")
    fitting = tuple(r for r in list_hardware() if gpu_names.fits(name, _tokens(r)))
    if len(fitting) == 1:
        return Resolution(_bundled(fitting[0]), note=f"only {fitting[0]} fits {name!r}")
    if fitting:
        return Resolution(None, fitting, f"ambiguous: {len(fitting)} boards fit {name!r}")
    return Resolution(None, note=f"no record fits {name[:120]!r}")


def _alias_key(name: str) -> tuple[object, ...]:
    words, memory = gpu_names.tokens(name)
    return (words, memory) if words or memory else ()


@lru_cache(maxsize=1)
def _files() -> Mapping[str, Path]:
    """Record name -> file, over all data folders; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in data_folders("hardware"):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem.lower(), path)
    return found


@lru_cache(maxsize=256)
def _bundled(name: str) -> Hardware:
    own = package_folder("hardware") / f"{name}.toml"
    return _load_file(own if own.is_file() else _files()[name])


@lru_cache(maxsize=256)
def _aliases(name: str) -> frozenset[tuple[object, ...]]:
    return frozenset(_alias_key(alias) for alias in _bundled(name).aliases)


@lru_cache(maxsize=256)
def _tokens(name: str) -> gpu_names.GpuTokens:
    record = _bundled(name)
    sizes = [record.memory_bytes.value / 1e9, record.memory_bytes.value / 2**30]
    if record.memory_nominal is not None:
        sizes.append(record.memory_nominal.value / 1e9)
    # A record without a chip name answers to its own name and aliases only.
    chip = gpu_names.tokens(record.chip)[0] or frozenset({""})
    fitting = gpu_names.tokens(" ".join((record.form_factor, *record.name_tokens)))[0]
    return gpu_names.GpuTokens(chip, fitting, tuple(sizes))


def _load_file(path: Path, depth: int = 0) -> Hardware:
    record = read_mapping(path, WHAT, "toml")
    try:
        return hardware_from_record(
            {"name": path.stem, **record},
            origin=path.name,
            base=_base(record, path, depth),
        )
    except DataError:
        raise
    except InputError as error:
        reason = str(error).removeprefix("Hardware: ")
        raise DataError(f"{WHAT} {shown(path)}: {reason[:_REASON]}") from None


def _base(record: Mapping[str, Any], path: Path, depth: int) -> Hardware | None:
    extends = record.get("extends")
    if extends is None:
        return None
    if not isinstance(extends, str):
        raise InputError('extends must be the name or path of a record, e.g. "h100-sxm"')
    if depth >= _DEPTH:
        raise InputError(f"more than {_DEPTH} records extend each other; is there a loop?")
    if looks_like_path(extends, ".toml"):
        return _load_file((path.parent / user_path(extends)), depth + 1)
    return load_hardware(extends)
