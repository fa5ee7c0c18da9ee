"""Systems and workloads that the simulator's tests share."""

from __future__ import annotations

import numpy as np
import pytest

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Lengths


@pytest.fixture
def chat_step() -> StepTime:
    """An 8-billion-parameter model on one H100, as in the queueing reference."""
    return StepTime(w=6e-3, c=26e-6, e=0, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6)


@pytest.fixture
def chat_lengths() -> Lengths:
    return Lengths(
        inputs=np.array([200.0, 800.0, 2000.0]),
        input_weights=np.array([0.3, 0.4, 0.3]),
        outputs=np.array([50.0, 200.5, 400.0]),
        output_weights=np.array([0.25, 0.5, 0.25]),
    )
