"""Images of a workload as prompt tokens, and their tower's time as part of the prompts' own.

A tower runs in the steps that take the prompt, on the same GPUs. Its time is therefore charged to
the prompts' attention pairs, the only work of a step that prompts alone have: each prompt costs the
tower's time on average, longer ones more than shorter ones.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bestserve.errors import InputError
from bestserve.models.step.device import Parallelism
from bestserve.models.step.step_time import StepTime
from bestserve.models.step.tower import tower_time
from bestserve.models.step.vision import Vision
from bestserve.models.system import Lengths

if TYPE_CHECKING:
    from bestserve.lowering.resolved import Resolved


def vision_of(resolved: Resolved) -> Vision:
    """Return the model's tower. Raises InputError where its rule is not known."""
    if resolved.problem.step_time is not None:
        raise InputError(
            "images_per_request needs a model; with a step time of one's own, count the images' "
            "tokens into input_len"
        )
    vision = resolved.model.architecture.vision
    if vision is None:
        raise InputError(
            f"how {resolved.model.name} cuts images into tokens is not known here (bundled records "
            "hold the text part only: give the path of its config.json; or it takes none); else "
            "count them into input_len instead of images_per_request"
        )
    return vision


def image_tokens(resolved: Resolved) -> int:
    """Return the tokens that the images of a prompt become."""
    return resolved.images * vision_of(resolved).tokens(*resolved.problem.workload.pixels)


def with_images(text: Lengths, tokens: int) -> Lengths:
    """Return the lengths of prompts with `tokens` more."""
    return dataclasses.replace(text, inputs=text.inputs + tokens)


def with_tower(step: StepTime, resolved: Resolved, parallelism: Parallelism) -> StepTime:
    """Return the step time with the tower's in its prompts' attention pairs."""
    vision = vision_of(resolved)
    pixels = resolved.problem.workload.pixels
    one = tower_time(
        vision,
        vision.patches(*pixels),
        resolved.device,
        parallelism.tp,
        resolved.constants,
        vision.pieces(*pixels),
    )
    lengths = resolved.lengths
    pairs = float((lengths.inputs * (lengths.inputs + 1) / 2) @ lengths.input_weights)
    return dataclasses.replace(step, a=step.a + resolved.images * one / pairs / step.phi)
