"""The form: every flag that states a problem as a field, from the declaration of the flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bestserve.catalog.engines import list_engines
from bestserve.catalog.hardware import list_hardware
from bestserve.catalog.models import list_models
from bestserve.cli.options import ProblemOptions
from bestserve.errors import InputError, shown
from bestserve.models.step.device import Precision
from bestserve.models.system import Routing
from bestserve.specs.complaints import in_plain_words
from bestserve.specs.model import KvDtype
from bestserve.specs.problem import LAYOUTS

Kind = Literal["text", "whole", "number", "yes or no"]

LONGEST = 2000
"""Characters of one field."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Model and GPUs": ("model", "hardware", "gpus", "engine", "precision", "kv_cache_dtype"),
    "Requests": ("input_len", "output_len", "burstiness", "prefix_cache_hit"),
    "Objectives": ("goodput", "percentile", "joint", "attainment"),
    "Prefixes and conversations": (
        "prefix_groups",
        "prefix_len",
        "prefix_questions",
        "prefix_skew",
        "turns",
        "think_time",
        "first_input_len",
        "enable_prefix_caching",
        "kv_offloading_size",
        "kv_offloading_bandwidth",
        "kv_peer_bandwidth",
    ),
    "Speculation and images": (
        "speculative_config",
        "acceptance",
        "images_per_request",
        "image_size",
    ),
    "A trace or a benchmark": (
        "trace",
        "trace_columns",
        "trace_unit",
        "max_concurrency",
        "num_prompts",
    ),
    "Engine and cluster": (
        "max_num_seqs",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "enable_chunked_prefill",
        "routing",
        "router_lag",
        "gpus_per_node",
        "network_bandwidth",
        "price_per_hour",
        "calibration",
    ),
    "What is tried": (
        "layout",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "tp_across_nodes",
    ),
}
"""Fields by what they are about; a flag that stands nowhere here is in the last group."""

REST = "More"
OPEN = ("Model and GPUs", "Requests", "Objectives")
"""Groups that are open from the start."""

UNITS = {
    "input_len": "tokens",
    "output_len": "tokens",
    "prefix_len": "tokens",
    "first_input_len": "tokens",
    "max_num_batched_tokens": "tokens",
    "think_time": "s",
    "router_lag": "s",
    "goodput": "ms",
    "percentile": "%",
    "kv_offloading_size": "GiB",
    "kv_offloading_bandwidth": "B/s",
    "kv_peer_bandwidth": "B/s",
    "image_size": "pixels",
    "network_bandwidth": "B/s",
    "price_per_hour": "USD/h",
}

CLOSED: dict[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "kv_cache_dtype": get_args(KvDtype),
    "routing": get_args(Routing),
    "layout": (*LAYOUTS, "both", "all"),
}
"""Flags that are read as text but know few words."""

SUGGESTED: dict[str, Callable[[], Sequence[str]]] = {
    "model": list_models,
    "hardware": list_hardware,
    "engine": list_engines,
}
"""Flags that take a name of the catalogue, or a path."""

EXAMPLES = {
    "model": "meta-llama/Llama-3.1-8B",
    "hardware": "h100-sxm",
    "gpus": "8",
    "input_len": "lognormal:1000,1",
    "output_len": "lognormal:250,1",
    "goodput": "ttft:1000 tpot:50",
    "engine": "vllm",
    "tensor_parallel_size": "1 2 4",
    "burstiness": "1",
    "percentile": "90",
}


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider beside a field that changes one number of its text, on a logarithmic scale.

    part : which number: "" the first, else the one after "part:"
    """

    label: str
    low: float
    high: float
    part: str = ""


SLIDERS: dict[str, tuple[Slider, ...]] = {
    "gpus": (Slider("GPUs", 1, 128),),
    "input_len": (Slider("Mean prompt length [tokens]", 16, 65536),),
    "output_len": (Slider("Mean answer length [tokens]", 8, 16384),),
    "goodput": (
        Slider("TTFT objective [ms]", 50, 20000, "ttft"),
        Slider("TPOT objective [ms]", 4, 500, "tpot"),
    ),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One flag on the page.

    flag : as in the shell, without dashes before it; attribute : of `ProblemOptions`
    several : it takes several words
    """

    flag: str
    attribute: str
    kind: Kind
    several: bool
    help: str
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What stands before the field: the flag in words."""
        text = self.attribute.replace("_", " ")
        for word in ("gpu", "gpus", "kv"):
            text = re.sub(rf"\b{word}\b", word.replace("gpu", "GPU").replace("kv", "KV"), text)
        return text[:1].upper() + text[1:]

    @property
    def unit(self) -> str:
        """Its unit, where it has one."""
        return UNITS.get(self.attribute, "")

    @property
    def example(self) -> str:
        """What may be written."""
        return EXAMPLES.get(self.attribute, "")

    @property
    def sliders(self) -> tuple[Slider, ...]:
        """The sliders that move it."""
        return SLIDERS.get(self.attribute, ())

    @property
    def suggestions(self) -> Sequence[str]:
        """Known names that may be written."""
        listed = SUGGESTED.get(self.attribute)
        return listed() if listed else ()

    def read(self, text: str) -> Any:
        """Return what the flag would read of this text. Raises InputError with the sentence."""
        if len(text) > LONGEST:
            raise InputError(f"more than {LONGEST} characters")
        words: Any = text.split() if self.several else text
        if self.choices and (unknown := [w for w in text.split() if w not in self.choices]):
            raise InputError(f"{shown(unknown[0], 40)}: take {', '.join(self.choices)}")
        try:
            return _adapter(self.attribute).validate_python(words)
        except ValidationError as error:
            said = in_plain_words(error.errors()[0])
            raise InputError(f"{shown(text, 40)}: {said[:1].lower()}{said[1:]}") from None


@cache
def form_fields() -> dict[str, Field]:
    """Return the fields by flag, in the order of the page."""
    told = _told()
    hints = _hints()
    known = [f.name for f in fields(ProblemOptions) if f.name != "problem"]
    named = [name for names in GROUPS.values() for name in names if name in known]
    found = [*named, *(name for name in known if name not in named)]
    return {field.flag: field for field in (_field(name, hints[name], told) for name in found)}


def grouped() -> list[tuple[str, list[Field]]]:
    """Return the groups of the form with their fields."""
    place = {name: group for group, names in GROUPS.items() for name in names}
    groups: dict[str, list[Field]] = {}
    for field in form_fields().values():
        groups.setdefault(place.get(field.attribute, REST), []).append(field)
    return list(groups.items())


def _field(name: str, hint: Any, told: dict[str, str]) -> Field:
    inner = _inner(hint)
    several = get_origin(inner) is list
    item = get_args(inner)[0] if several else inner
    choices = CLOSED.get(name, ())
    if get_origin(item) is Literal:
        choices = tuple(str(c) for c in get_args(item))
    kinds: dict[Any, Kind] = {int: "whole", float: "number", bool: "yes or no"}
    return Field(
        flag=name.replace("_", "-"),
        attribute=name,
        kind=kinds.get(item, "text"),
        several=several,
        help=told.get(name, ""),
        choices=choices,
    )


def _inner(hint: Any) -> Any:
    """Return a type without its None."""
    if get_origin(hint) is UnionType or type(None) in get_args(hint):
        kept = [kind for kind in get_args(hint) if kind is not NoneType]
        return kept[0]
    return hint


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(ProblemOptions)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_hints()[name])


def _told() -> dict[str, str]:
    """Return what the command line's help says of each flag."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ProblemOptions.__doc__ or "").splitlines():
        text = line.strip()
        if re.fullmatch(r" {4}[a-z_0-9]+", line):
            name = text
            found[name] = []
        elif name and text:
            found[name].append(text)
    return {name: " ".join(lines) for name, lines in found.items()}
