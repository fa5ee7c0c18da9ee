"""What arrives: lengths, arrivals, cache hits, classes."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bestserve.specs.base import Spec
from bestserve.specs.lengths import LengthLaw
from bestserve.specs.prefixes import Conversation, PrefixGroups, in_own_words
from bestserve.units import Name, Share

TraceColumn = Literal["arrival", "input_len", "output_len", "hash_ids"]
TraceUnit = Literal["s", "ms", "us", "ns", "date"]
PIXELS = re.compile("[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")


class RequestClass(Spec):
    """One kind of request in a mixed workload; `share` of the requests are of it.

    priority : engines take the least one first (vLLM's `--scheduling-policy priority`); where all
        classes have the same, in order of arrival
    """

    name: Name
    share: float = Field(gt=0, le=1)
    input_len: LengthLaw
    output_len: LengthLaw
    priority: int = Field(default=0, ge=-1000, le=1000)


class Workload(Spec):
    """Requests as they reach the service.

    input_len, output_len : length laws [tokens]; a number means fixed
    burstiness : vLLM's: shape of the gamma-distributed gaps; 1 is Poisson, below 1 burstier
    prefix_cache_hit : share of the prompt tokens found in the prefix cache [1], where it is known
    images_per_request, image_size : images in each prompt, beside its text, and their width and
        height ("1024x768") [pixels]; the model's own rule says how many tokens they become
    prefixes, conversation : what prompts share, from which the hits follow; `input_len` is then
        what a request adds. Their fields are understood without the table too, and so are the
        words of `vllm bench serve` (random_prefix_len, prefix_repetition_…), SGLang's (gsp_…) and
        inference-perf's (num_groups, system_prompt_len, …)
    classes : instead of `input_len` and `output_len`, several kinds of requests with shares
    trace : path of a request trace, or of a folder of ServeGen clients (their busiest hour); its
        lengths (jointly) and arrival times are replayed
    trace_columns : which column of a trace of unknown format holds what: arrival (optional),
        input_len, output_len; trace_unit : of its arrivals (s, ms, us, ns, date)
    max_concurrency, num_prompts : a closed loop as benchmark clients run it: that many clients,
        all starting at once, sending that many prompts in all

    >>> Workload(input_len=512, output_len="geometric(100)").output_len.mean_tokens
    100.0
    """

    input_len: LengthLaw | None = None
    output_len: LengthLaw | None = None
    burstiness: float = Field(default=1.0, ge=0.001, le=1000)
    prefix_cache_hit: Share = 0.0
    images_per_request: int = Field(default=0, ge=0, le=1000)
    image_size: str = "1024x1024"
    prefixes: PrefixGroups | None = None
    conversation: Conversation | None = None
    classes: tuple[RequestClass, ...] = Field(default=(), max_length=1000)
    trace: str | None = Field(default=None, max_length=4096)
    trace_columns: dict[TraceColumn, str] | None = None
    trace_unit: TraceUnit = "s"
    max_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    num_prompts: int | None = Field(default=None, ge=1, le=10_000_000)

    @model_validator(mode="before")
    @classmethod
    def _own_words(cls, values: Any) -> Any:
        return in_own_words(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _sharing(self) -> Workload:
        if not self.shares:
            return self
        if self.input_len is None:
            raise ValueError("prefixes and conversation need input_len and output_len")
        if self.prefix_cache_hit:
            raise ValueError(
                "prefix_cache_hit states what prefixes and conversation lead to: give one of them"
            )
        if self.conversation is not None and self.prefixes and self.prefixes.questions:
            raise ValueError("questions are asked again and again; a conversation's are its own")
        return self

    @field_validator("image_size")
    @classmethod
    def _sized(cls, size: str) -> str:
        if not PIXELS.fullmatch(size):
            raise ValueError("must be width x height in pixels, e.g. 1024x768")
        return size

    @model_validator(mode="after")
    def _pictured(self) -> Workload:
        if not self.images_per_request:
            if self.image_size != type(self).model_fields["image_size"].default:
                raise ValueError("image_size needs images_per_request")
        elif self.shares or self.trace is not None:
            raise ValueError(
                "images beside prefixes, a conversation or a trace are not modelled: count their "
                "tokens into input_len instead of images_per_request"
            )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Workload:
        given = [
            self.input_len is not None or self.output_len is not None,
            bool(self.classes),
            self.trace is not None,
        ]
        if sum(given) != 1:
            raise ValueError("give input_len and output_len, or classes, or a trace: exactly one")
        if given[0] and (self.input_len is None or self.output_len is None):
            raise ValueError("input_len and output_len are both needed")
        if self.classes and abs(sum(c.share for c in self.classes) - 1) > 1e-6:
            total = sum(c.share for c in self.classes)
            raise ValueError(f"the shares of the classes sum to {total:.6g}, not 1")
        if self.trace_columns is not None and self.trace is None:
            raise ValueError("trace_columns needs a trace")
        if self.num_prompts is not None and self.max_concurrency is None:
            raise ValueError("num_prompts needs max_concurrency (a closed loop)")
        if self.prefix_cache_hit >= 1:
            raise ValueError("prefix_cache_hit must be below 1: the last prompt token is computed")
        return self

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of an image [pixels]."""
        width, height = self.image_size.split("x")
        return int(width), int(height)

    @property
    def shares(self) -> bool:
        """Whether it says what prompts share."""
        return self.prefixes is not None or self.conversation is not None

    @property
    def closed(self) -> bool:
        """Whether clients wait for their answers before they send again."""
        return self.max_concurrency is not None

    def scaled(self, **changes: Any) -> Workload:
        """Return a copy with some fields changed, validated again."""
        return Workload(**{**{k: getattr(self, k) for k in type(self).model_fields}, **changes})
