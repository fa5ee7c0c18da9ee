"""Hybrids: who sends which prompts straight to decode instances.

Engines know one rule, by length: NVIDIA Dynamo's frontend (conditional disaggregation, from 1.4 on)
and `trtllm-serve disaggregated` process prompts of up to a threshold on decode instances. A plan
that shares prompts out in another way is started with the length that splits off as many.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bestserve.errors import InputError
from bestserve.lowering import Lowered
from bestserve.models.hybrid import local_share
from bestserve.models.system import Hybrid
from bestserve.specs.strategy import Strategy

DYNAMO = "1.5.1"
"""Version of the images: the one whose documentation has conditional disaggregation."""

EVENTS = {"publisher": "zmq", "topic": "kv-events", "enable_kv_cache_events": True}
"""vLLM's `--kv-events-config`, without which Dynamo does not look at decode instances."""


def refuse(strategy: Strategy, family: str) -> None:
    """Raise InputError for hybrids that an engine does not run."""
    if not strategy.hybrid:
        return
    if family == "sglang":
        raise InputError(
            f"{strategy}: SGLang's decode instances take no prompts beside prefill instances; "
            "take engine vllm or tensorrt-llm, or another layout"
        )
    if strategy.pools[0].local or strategy.pools[1].flow_percent is not None:
        raise InputError(
            f"{strategy}: no router keeps answers on prefill instances, or moves decodes on their "
            "way; leave out -decode and -flow"
        )


def longest_local(lowered: Lowered, strategy: Strategy) -> int:
    """Return the longest prompt that decode instances process themselves [tokens].

    The plan's, or the length that splits off the share of prompts that the plan has there.
    """
    stated = strategy.pools[1].longest_local
    if stated is not None:
        return stated
    system = lowered.system(strategy)
    assert isinstance(system, Hybrid)
    law = system.lengths
    order = np.argsort(law.inputs)
    below = np.cumsum(law.input_weights[order])
    i = int(np.searchsorted(below, local_share(system)))
    return int(law.inputs[order][min(i, order.size - 1)])


def dynamo_words(lowered: Lowered, strategy: Strategy) -> list[str]:
    """Return what Dynamo's frontend is told of a hybrid."""
    config: dict[str, Any] = {
        "policy": "isl_bounding",
        "eff_isl_threshold": longest_local(lowered, strategy),
        "eff_isl_ratio_threshold": 1.0,
    }
    words = ["--router-kv-events", "--router-conditional-disagg"]
    return [*words, "--router-conditional-disagg-config", json.dumps(config)]


def tensorrt_config(lowered: Lowered, strategy: Strategy) -> dict[str, Any]:
    """Return what `trtllm-serve disaggregated` is told of a hybrid."""
    return {
        "conditional_disagg_config": {"max_local_prefill_length": longest_local(lowered, strategy)}
    }


def remarks(lowered: Lowered, strategy: Strategy, family: str) -> list[str]:
    """Return what a reader of a hybrid's commands should know."""
    if not strategy.hybrid:
        return []
    back = strategy.pools[1]
    tokens = longest_local(lowered, strategy)
    said = []
    if family == "vllm":
        said.append(
            "vllm-router sends every prompt to a prefill instance; for the plan prompts of up to "
            f"{tokens} tokens go straight to decode instances, which --format dynamo's router does"
        )
    if back.longest_local is None:
        said.append(
            "the plan goes by load, engines by length: the threshold keeps as many prompts local"
        )
    if back.prefill_queue is not None:
        said.append("engines know no threshold on queued requests: -queue is left out")
    return said
