"""Time of a vision tower: what an image costs once, before the decoder sees its tokens."""

from __future__ import annotations

from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device
from bestserve.models.step.roofline import gemm
from bestserve.models.step.vision import Vision


def tower_time(
    vision: Vision,
    patches: int,
    device: Device,
    tp: int = 1,
    constants: OperatorConstants = DEFAULT,
    pieces: int = 1,
) -> float:
    """Return the time of the tower for an image of `patches`, split over `tp` GPUs [s].

    pieces : parts of the image, each of which attends to itself only

    Attention over all pairs of patches is charged at the rate of the products (an upper bound for
    towers that attend within windows). All-reduces are left out.
    """
    width, inner = vision.hidden_size, vision.intermediate_size
    shapes = [(3 * width, width), (width, width), (inner, width), (width, inner)]
    shapes += [(inner, width)] * vision.gated
    products = [gemm(patches, n / tp, k, device, constants=constants) for n, k in shapes]
    pairs = gemm(patches, patches / pieces / tp, width, device, constants=constants)
    return vision.num_layers * (sum(float(p.time) for p in products) + 2.0 * float(pairs.time))
