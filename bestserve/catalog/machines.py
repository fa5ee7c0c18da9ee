"""Which GPU a cloud's machine type has: AWS, Google Cloud, Azure.

From the providers' own instance pages. Types whose board has no record are left out, and so are
families that come with several boards.
"""

from __future__ import annotations

import re

_MACHINES: tuple[tuple[str, str], ...] = (
    # AWS EC2
    (r"p4d\.\w+", "a100-40gb-sxm"),
    (r"p4de\.\w+", "a100-80gb-sxm"),
    (r"p5\.\w+", "h100-sxm"),
    (r"p5en?\.\w+", "h200-sxm"),
    (r"p6-b200\.\w+", "b200-sxm"),
    (r"g5\.\w+", "a10g"),
    (r"g6\.\w+", "l4"),
    (r"g6e\.\w+", "l40s"),
    # Google Compute Engine, and GKE's accelerator label of a3-megagpu
    (r"a2-(high|mega)gpu-\d+g", "a100-40gb-sxm"),
    (r"a2-ultragpu-\d+g", "a100-80gb-sxm"),
    (r"a3-(high|mega|edge)gpu-\d+g", "h100-sxm"),
    (r"nvidia-h100-mega-80gb", "h100-sxm"),
    (r"a3-ultragpu-\d+g", "h200-sxm"),
    (r"a4-highgpu-\d+g", "b200-sxm"),
    (r"a4x-highgpu-\d+g", "gb200"),
    (r"g2-standard-\d+", "l4"),
    # Azure
    (r"nd96asr_(a100_)?v4", "a100-40gb-sxm"),
    (r"nd96amsr_a100_v4", "a100-80gb-sxm"),
    (r"nc(24|48|96)ads_a100_v4", "a100-80gb-pcie"),
    (r"nc(40ads|80adis)_h100_v5", "h100-nvl"),
    (r"nd96isr_h100_v5", "h100-sxm"),
    (r"nd96isr_h200_v5", "h200-sxm"),
    (r"nd96isr_mi300x_v5", "mi300x"),
)


def machine_gpu(name: str) -> str:
    """Return the record of a machine type's GPU, or an empty string.

    >>> machine_gpu("p5.48xlarge"), machine_gpu("Standard_ND96isr_H100_v5"), machine_gpu("H100")
    ('h100-sxm', 'h100-sxm', '')
    """
    kind = name.strip().lower().removeprefix("standard_")
    return next((gpu for pattern, gpu in _MACHINES if re.fullmatch(pattern, kind)), "")
