"""Saturated throughput: the rate beyond which queues grow without bound.

Prefill first: 1/λ* = E[D] t_d(B)/B + S, S the prompt time at the batch sizes that saturation
makes. Shared steps (chunked, mixed): if the token budget binds before the slots, decodes hold
b = M E[D]/(E[l]+E[D]) tokens of it and λ* = (M − b)/(E[l] t); else B sequences run, each through
C steps of its prompt and D of its decode, and λ* = B/((C + E[D]) τ) with τ the step with the
prompts that keep them coming. Decode only:
λ* = B/(E[D] t_d(B)).
"""

from __future__ import annotations

from collections.abc import Callable


def decode_limit(slots: float, steps: float, full_step: float) -> float:
    """Return B/(E[D] t_d(B)) [1/s]; infinite when nothing decodes."""
    return slots / (steps * full_step) if steps > 0 else float("inf")


def prefill_first_limit(decode: float, prompt_time: float) -> float:
    """Return λ* = 1/(1/decode + prompt_time) [1/s], `decode` the decode-only limit."""
    return 1.0 / (1.0 / decode + prompt_time)


def any_ends(slots: float, steps: float) -> float:
    """Return the chance that a step ends one of `slots` requests of so many steps, of even age."""
    return 1.0 - (1.0 - 1.0 / max(steps, 1.0)) ** slots


def shared_limit(
    slots: float,
    prompt: float,
    steps: float,
    packed: Callable[[float], float],
    step: Callable[[float, float], float],
    chunks: float = 0.0,
) -> tuple[float, float]:
    """Return λ* of steps that hold decodes and prompts, and the decodes they then hold [1/s, 1].

    slots : B; prompt : E[l] [tokens]; steps : E[D]
    packed : decodes → prompt tokens that fill a step beside them
    step : (prompt tokens, decodes) → time [s]
    chunks : steps that a prompt takes, in which it holds a slot, too
    """
    if steps <= 0:
        return packed(0.0) / (prompt * step(packed(0.0), 0.0)), 0.0
    slots *= steps / (steps + chunks)
    # decodes in step with what is packed beside them: b = taken/E[l] · E[D], which falls with b
    low, high = 0.0, slots
    for _ in range(40):
        decodes = (low + high) / 2
        if packed(decodes) / prompt * steps > decodes:
            low = decodes
        else:
            high = decodes
    if high < slots:
        taken = packed(decodes)
        return taken / (prompt * step(taken, decodes)), decodes
    # a prompt arrives every few steps: those steps are longer than the average one
    plain, per_step = step(0.0, slots), slots / steps
    most = max(packed(slots), prompt)
    share = min(max(any_ends(slots, steps + chunks), per_step * prompt / most), 1.0)
    taken = min(per_step * prompt / share, most)
    mean = (1 - share) * plain + share * step(taken, slots)
    return slots / (steps * max(mean, plain)), slots
