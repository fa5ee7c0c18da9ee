"""Prefill-priority (Orca-style separate batches; vLLM V0, SGLang): prompts interrupt decodes.

While prompts wait and can be admitted, a step takes whole prompts up to the budget, at least
one, and decodes wait. Yu et al., "Orca", OSDI 2022, §4; SGLang's default scheduler.
"""

from __future__ import annotations

from numba import njit

DECODES_RIDE = False
"""Decodes wait through steps that contain prompt tokens."""


@njit(cache=True)
def tokens_taken(remaining: int, left: int, taken: int) -> int:
    """Return `remaining` if the whole prompt goes into this step, else 0 [tokens].

    left : tokens of the budget not given away yet; taken : prompts already in the step
    """
    return remaining if remaining <= left or taken == 0 else 0
