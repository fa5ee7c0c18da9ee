"""bestserve: which LLM serving strategy gives the highest goodput, and how sure are you?

>>> import bestserve as bs
>>> bs.SLO("ttft:1000 tpot:50", percentile=90).tpot
0.05
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bestserve._version import __version__

_WHERE = {
    "Problem": "bestserve.specs.problem",
    "Workload": "bestserve.specs.workload",
    "RequestClass": "bestserve.specs.workload",
    "PrefixGroups": "bestserve.specs.prefixes",
    "Conversation": "bestserve.specs.prefixes",
    "KvTier": "bestserve.specs.prefixes",
    "Fixed": "bestserve.specs.lengths",
    "Uniform": "bestserve.specs.lengths",
    "LogNormal": "bestserve.specs.lengths",
    "Geometric": "bestserve.specs.lengths",
    "Empirical": "bestserve.specs.lengths",
    "SLO": "bestserve.specs.slo",
    "Strategy": "bestserve.specs.strategy",
    "Model": "bestserve.specs.model",
    "Hardware": "bestserve.specs.hardware",
    "StepTime": "bestserve.models.step.step_time",
    "predict": "bestserve.api",
    "goodput": "bestserve.api",
    "rank": "bestserve.api",
    "rank_smooth": "bestserve.api",
    "headroom": "bestserve.api",
    "hit_needed": "bestserve.api",
    "cache_plans": "bestserve.api",
    "size": "bestserve.api",
    "Fleet": "bestserve.specs.fleet",
    "allocate": "bestserve.fleet.allocate",
    "schedule": "bestserve.fleet.schedule.answer",
    "ScheduleOptions": "bestserve.fleet.schedule.options",
    "simulate": "bestserve.api",
    "memory": "bestserve.api",
    "explain": "bestserve.api",
    "report": "bestserve.reporting.page",
    "ui": "bestserve.web.serve",
    "curves": "bestserve.reporting.curves",
    "sensitivity": "bestserve.api",
    "sweep": "bestserve.api",
    "uncertainty": "bestserve.api",
    "what_if": "bestserve.api",
    "read_metrics": "bestserve.readers.metrics.reading",
    "validate": "bestserve.validation.compare",
    "calibrate": "bestserve.validation.calibrate",
}
"""Public names and the modules that define them; loaded when first used (PEP 562)."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bestserve' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


if TYPE_CHECKING:
    from bestserve.api import cache_plans as cache_plans
    from bestserve.api import explain as explain
    from bestserve.api import goodput as goodput
    from bestserve.api import headroom as headroom
    from bestserve.api import hit_needed as hit_needed
    from bestserve.api import memory as memory
    from bestserve.api import predict as predict
    from bestserve.api import rank as rank
    from bestserve.api import rank_smooth as rank_smooth
    from bestserve.api import sensitivity as sensitivity
    from bestserve.api import simulate as simulate
    from bestserve.api import size as size
    from bestserve.api import sweep as sweep
    from bestserve.api import uncertainty as uncertainty
    from bestserve.api import what_if as what_if
    from bestserve.fleet.allocate import allocate as allocate
    from bestserve.fleet.schedule.answer import schedule as schedule
    from bestserve.fleet.schedule.options import ScheduleOptions as ScheduleOptions
    from bestserve.models.step.step_time import StepTime as StepTime
    from bestserve.readers.metrics.reading import read_metrics as read_metrics
    from bestserve.reporting.curves import curves as curves
    from bestserve.reporting.page import report as report
    from bestserve.specs.fleet import Fleet as Fleet
    from bestserve.specs.hardware import Hardware as Hardware
    from bestserve.specs.lengths import Empirical as Empirical
    from bestserve.specs.lengths import Fixed as Fixed
    from bestserve.specs.lengths import Geometric as Geometric
    from bestserve.specs.lengths import LogNormal as LogNormal
    from bestserve.specs.lengths import Uniform as Uniform
    from bestserve.specs.model import Model as Model
    from bestserve.specs.prefixes import Conversation as Conversation
    from bestserve.specs.prefixes import KvTier as KvTier
    from bestserve.specs.prefixes import PrefixGroups as PrefixGroups
    from bestserve.specs.problem import Problem as Problem
    from bestserve.specs.slo import SLO as SLO
    from bestserve.specs.strategy import Strategy as Strategy
    from bestserve.specs.workload import RequestClass as RequestClass
    from bestserve.specs.workload import Workload as Workload
    from bestserve.validation.calibrate import calibrate as calibrate
    from bestserve.validation.compare import validate as validate
    from bestserve.web.serve import ui as ui
