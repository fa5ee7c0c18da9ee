"""Scheduling policies, one a file: what a step takes from the waiting prompts.

A policy is data: queueing models, compiled simulator and the naive loop of the tests read the same
facts, and none of them knows its name. To add one, put a module here that holds

    POLICY = Policy(name="…", splits=…, rides=…)

or name such an object in the entry-point group `bestserve.policies` of another package. The
conformance tests run over whatever is found.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from bestserve.errors import UnknownNameError

ENTRY_POINTS = "bestserve.policies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How an engine fills its steps; the queue is first come first served.

    name : as engine records write it
    splits : whether a prompt may be cut where the step's room ends; otherwise whole prompts go as
        long as there is room for them, the first of a step in any case
    rides : whether decodes take part in steps with prompt tokens, each for one token of
        `max_num_batched_tokens`; otherwise they wait while prompts are processed
    most_prompts : prompts that a step works on at most; 0: any number
    prompt_budget : prompt tokens that a step takes at most; 0: `max_num_batched_tokens` decides

    >>> find_policy("chunked").splits, find_policy("prefill_priority").rides
    (True, False)
    """

    name: str
    splits: bool
    rides: bool
    most_prompts: int = 0
    prompt_budget: int = 0

    def room(self, max_num_batched_tokens: int) -> int:
        """Return how many prompt tokens a step without decodes takes at most [tokens]."""
        return min(self.prompt_budget or max_num_batched_tokens, max_num_batched_tokens)

    @property
    def has_formula(self) -> bool:
        """Whether the queueing models know it; what they do not know is simulated.

        They know no steps with limits of their own on prompts, and no split prompts in steps
        without decodes.
        """
        limited = self.most_prompts > 0 or self.prompt_budget > 0
        return not limited and (self.rides or not self.splits)


@cache
def policies() -> Mapping[str, Policy]:
    """Return all policies by name: this folder's modules, then other packages' entry points."""
    found: dict[str, Policy] = {}
    for info in pkgutil.iter_modules(__path__):
        policy: Policy = importlib.import_module(f"{__name__}.{info.name}").POLICY
        found[policy.name] = policy
    for entry in entry_points(group=ENTRY_POINTS):
        policy = entry.load()
        found.setdefault(policy.name, policy)
    return found


def nearest_with_formula(policy: Policy) -> Policy:
    """Return the policy that the queueing models know and that fills steps most alike."""
    return min(
        (p for p in policies().values() if p.has_formula),
        key=lambda p: (p.name != policy.name, p.rides != policy.rides, p.splits != policy.splits),
    )


def find_policy(name: str) -> Policy:
    """Return the policy of a name. Raises UnknownNameError."""
    known = policies()
    if name not in known:
        raise UnknownNameError("policy", name, known, f"known are {', '.join(known)}")
    return known[name]
