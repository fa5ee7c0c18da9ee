"""What became of a measured row: predicted, or the one reason why not."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Outcome(StrEnum):
    """Status of a row in a comparison; `sentence` is what the user reads."""

    PREDICTED = "predicted"
    NOT_MEASURED = "not_measured"
    GPU_UNKNOWN = "gpu_unknown"
    GPU_AMBIGUOUS = "gpu_ambiguous"
    MODEL_UNKNOWN = "model_unknown"
    ENGINE_UNKNOWN = "engine_unknown"
    PARALLELISM_MISSING = "parallelism_missing"
    LENGTHS_MISSING = "lengths_missing"
    LOAD_MISSING = "load_missing"
    CONTRADICTION = "contradiction"
    NOT_MODELLED = "not_modelled"
    DOES_NOT_FIT = "does_not_fit"
    OVERLOADED = "overloaded"

    @property
    def sentence(self) -> str:
        """The status in words."""
        return SENTENCES[self]


SENTENCES: dict[Outcome, str] = {
    Outcome.PREDICTED: "predicted",
    Outcome.NOT_MEASURED: "the row has nothing to compare with",
    Outcome.GPU_UNKNOWN: "the GPU is not in the catalogue",
    Outcome.GPU_AMBIGUOUS: "the GPU's name fits several boards",
    Outcome.MODEL_UNKNOWN: "the model is not in the catalogue",
    Outcome.ENGINE_UNKNOWN: "the engine is not known",
    Outcome.PARALLELISM_MISSING: "how the model was split over the GPUs is not stated",
    Outcome.LENGTHS_MISSING: "prompt or output lengths are not stated",
    Outcome.LOAD_MISSING: "neither a request rate nor a concurrency is stated",
    Outcome.CONTRADICTION: "the row contradicts itself",
    Outcome.NOT_MODELLED: "the run used something that is not modelled",
    Outcome.DOES_NOT_FIT: "the deployment does not fit the memory model",
    Outcome.OVERLOADED: (
        "the rate exceeds the predicted capacity, and the row does not say how long the run was"
    ),
}


class UnpredictableError(Exception):
    """A row that cannot be predicted; caught in `replay`, never seen by users.

    outcome : which status; detail : what exactly, for the reason
    """

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(outcome, detail)  # both, so that the exception survives pickling
        self.outcome, self.detail = outcome, detail

    @property
    def reason(self) -> str:
        """One sentence: the status, and what exactly."""
        said = self.outcome.sentence
        if self.detail.startswith("not stated"):
            return f"{said.partition(' is ')[0]} is {self.detail}"
        return f"{said}: {self.detail}" if self.detail else said


class Noted(NamedTuple, Generic[T]):
    """A value that a row states or a rule gives, and the sentences of the rules that gave it."""

    value: T
    notes: tuple[str, ...] = ()
