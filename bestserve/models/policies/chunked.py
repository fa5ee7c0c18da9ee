"""Chunked prefill (Sarathi-Serve; vLLM V1): decodes first, prompts fill the budget.

Every running request takes one token of the budget; what remains goes to waiting prompts in
order, and the last of them is split. Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM
Inference with Sarathi-Serve", OSDI 2024, §4.
"""

from __future__ import annotations

from numba import njit

DECODES_RIDE = True
"""Decodes take part in steps that contain prompt tokens."""


@njit(cache=True)
def tokens_taken(remaining: int, left: int, taken: int) -> int:
    """Return how many of a prompt's `remaining` tokens this step takes [tokens].

    left : tokens of the budget not given away yet; taken : prompts already in the step
    """
    return min(remaining, left)
