"""Prompts that a suite has sent before, which caches still hold."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bestserve.models.system import Lane, Lengths

if TYPE_CHECKING:
    from bestserve.validation.replay import Prepared


def with_earlier_prompts(prepared: Prepared, lane: Lane) -> Lengths:
    """Return the lengths with the prompts that a suite's earlier runs left in the cache."""
    row, engine = prepared.row, prepared.deployment.engine
    lengths = prepared.protocol.lengths
    caches = engine.family == "vllm" and engine.preset != "vllm-v0"  # V1 does by default
    if (
        lengths.cached.size == 0
        and prepared.suite.repeats_prompts
        and caches
        and row.prefix_caching is not False
    ):
        lengths = with_all_prompts(lengths, lane, prepared.protocol.requests)
    return lengths


def with_all_prompts(lengths: Lengths, lane: Lane, prompts: int) -> Lengths:
    """Return the lengths with every prompt cached in whole blocks, if the cache holds them all.

    prompts : sent over and over in the same order, so that a smaller cache has always just dropped
        the next one
    """
    tokens = float(lengths.inputs @ lengths.input_weights)
    if prompts * tokens > lane.kv_capacity_tokens:
        return lengths
    whole = np.floor((lengths.inputs - 1.0) / lane.kv_block) * lane.kv_block
    return dataclasses.replace(lengths, cached=whole)


def with_repeated_prompts(prepared: Prepared, lane: Lane, replicas: int) -> Lengths:
    """Return the lengths with prompts cached that an earlier run of the suite left on the replica.

    Each run sends its prompts in the same order, after one of them as a test, so round robin gives
    a prompt to the same replica again if the requests of some earlier runs add up to whole rounds.
    """
    row, lengths = prepared.row, prepared.protocol.lengths
    turns = prepared.suite.clients_in_turn
    if not (row.prefix_caching and row.concurrency in turns and row.num_prompts):
        return lengths
    before = turns.index(row.concurrency)
    sent = row.num_prompts + 1
    seen = any(sent * runs % replicas == 0 for runs in range(1, before + 1))
    return with_all_prompts(lengths, lane, row.num_prompts) if seen else lengths
