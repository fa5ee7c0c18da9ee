"""What prompts share: prefix groups, conversations, and where blocks go that a GPU gives up."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from bestserve.specs.base import Spec
from bestserve.specs.lengths import LengthLaw
from bestserve.units import Name

Times = Annotated[float, Field(ge=0, le=1e6)]


class PrefixGroups(Spec):
    """Groups of requests that begin alike; `input_len` is what a request adds.

    groups : how many prefixes there are
    prefix_len : law of their lengths [tokens]
    skew : popularity of the n-th group goes as n^−skew (Zipf); 0: all alike
    questions : different questions a group has, asked again and again; None: no two are alike

    >>> PrefixGroups(groups=150, prefix_len=6000).prefix_len.mean_tokens
    6000.0
    """

    groups: int = Field(default=1, ge=1, le=1_000_000)
    prefix_len: LengthLaw
    skew: float = Field(default=0.0, ge=0, le=10)
    questions: int | None = Field(default=None, ge=1, le=1_000_000)


class Conversation(Spec):
    """Sessions of several requests, each of which repeats all before it, answers included.

    `input_len` is what a request adds and `output_len` its answer; a request rate counts requests,
    so that sessions start at that rate over the mean number of turns.

    turns : law of the requests of a session
    think_time : mean time from an answer to the session's next request [s]; exponential, or always
        the same with `think_fixed`. Of an agent that is its tools' time.
    first_input_len : law of what a session's first request brings [tokens], e.g. a document;
        default: as the others
    """

    turns: LengthLaw
    think_time: Times = 0.0
    think_fixed: bool = False
    first_input_len: LengthLaw | None = None


class KvTier(Spec):
    """A place to which KV blocks are offloaded: host memory, disk, a remote store; or the peers.

    gigabytes : what it holds, for each instance, or for all together if `shared` [10⁹ bytes]
    bandwidth : at which an instance reads from it, per GPU [B/s]; latency : before that [s]
    peers : the caches of the other instances, from which KV is fetched; without `gigabytes`
    """

    name: Name = "host"
    gigabytes: float | None = Field(default=None, gt=0, le=1e9)
    bandwidth: float = Field(gt=0, le=1e15)
    latency: float = Field(default=0.0, ge=0, le=1e4)
    shared: bool = False
    peers: bool = False

    @model_validator(mode="after")
    def _sized(self) -> KvTier:
        if self.peers == (self.gigabytes is not None):
            raise ValueError(
                "a tier has gigabytes; peers have none of their own, their caches are what they are"
            )
        return self


WORDS: dict[str, tuple[str, str]] = {
    "prefix_groups": ("prefixes", "groups"),
    "prefix_len": ("prefixes", "prefix_len"),
    "prefix_skew": ("prefixes", "skew"),
    "prefix_questions": ("prefixes", "questions"),
    "turns": ("conversation", "turns"),
    "think_time": ("conversation", "think_time"),
    "tool_time": ("conversation", "think_time"),
    "first_input_len": ("conversation", "first_input_len"),
    # vllm bench serve
    "random_prefix_len": ("prefixes", "prefix_len"),
    "random_input_len": ("", "input_len"),
    "random_output_len": ("", "output_len"),
    "prefix_repetition_num_prefixes": ("prefixes", "groups"),
    "prefix_repetition_prefix_len": ("prefixes", "prefix_len"),
    "prefix_repetition_suffix_len": ("", "input_len"),
    "prefix_repetition_output_len": ("", "output_len"),
    # sglang.bench_serving --dataset-name generated-shared-prefix
    "gsp_num_groups": ("prefixes", "groups"),
    "gsp_prompts_per_group": ("prefixes", "questions"),
    "gsp_system_prompt_len": ("prefixes", "prefix_len"),
    "gsp_question_len": ("", "input_len"),
    "gsp_output_len": ("", "output_len"),
    # inference-perf, data.shared_prefix
    "num_groups": ("prefixes", "groups"),
    "num_prompts_per_group": ("prefixes", "questions"),
    "system_prompt_len": ("prefixes", "prefix_len"),
    "question_len": ("", "input_len"),
}
"""Words of flags and benchmark clients: the part of a workload that they state, and its field."""


def in_own_words(values: dict[str, Any]) -> dict[str, Any]:
    """Return a workload's fields with clients' words translated; what is stated twice is refused.

    >>> in_own_words({"gsp_num_groups": 64, "gsp_system_prompt_len": 2048, "gsp_question_len": 128})
    {'prefixes': {'groups': 64, 'prefix_len': 2048}, 'input_len': 128}
    """
    out = {k: v for k, v in values.items() if k not in WORDS}
    for word, value in values.items():
        if word not in WORDS:
            continue
        part, field = WORDS[word]
        place = out
        if part:
            inner = out.get(part)
            if isinstance(inner, Spec):
                inner = {k: getattr(inner, k) for k in type(inner).model_fields}
            place = out[part] = dict(inner or {})
        if field in place:
            raise ValueError(f"{word} states {part or 'the workload'}.{field} a second time")
        place[field] = value
    return out
