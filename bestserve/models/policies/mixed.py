"""Mixed batching of whole prompts (TensorRT-LLM in-flight batching without chunked context).

A step has all decodes and, in order, whole prompts as long as the budget holds them. The first
prompt always goes: TensorRT-LLM refuses prompts beyond `max_num_tokens`, and users set it to
the longest prompt plus the batch size, where both rules agree.
"""

from __future__ import annotations

from numba import njit

DECODES_RIDE = True
"""Decodes take part in steps that contain prompt tokens."""


@njit(cache=True)
def tokens_taken(remaining: int, left: int, taken: int) -> int:
    """Return `remaining` if the whole prompt goes into this step, else 0 [tokens].

    left : tokens of the budget not given away yet; taken : prompts already in the step
    """
    return remaining if remaining <= left or taken == 0 else 0
