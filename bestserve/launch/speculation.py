"""Speculative decoding in each engine's own words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bestserve.errors import InputError
from bestserve.launch.process import model_argument
from bestserve.lowering import Lowered
from bestserve.lowering.speculation import usual_drafts
from bestserve.models.speculation import Speculation
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.specs.strategy import Pool

LAST = 1_000_000
"""End of a table's last row: every engine holds fewer sequences."""

ALGORITHMS = {
    "eagle": "EAGLE",
    "eagle3": "EAGLE3",
    "mtp": "NEXTN",
    "draft_model": "STANDALONE",
    "ngram": "NGRAM",
}
"""SGLang's names of the methods; it has no suffix decoding."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """What a pool's engine drafts: the configuration, and (decodes from which, drafts)."""

    config: SpeculativeConfig
    schedule: tuple[tuple[int, int], ...]

    @property
    def most(self) -> int:
        """Drafts per decode at most [tokens]."""
        return max(drafts for _, drafts in self.schedule)

    def model(self) -> str:
        """Return the drafter's name. Raises InputError where none is stated."""
        if self.config.model is None:
            raise InputError(
                f"method {self.config.method} needs the drafter's name to be started: give "
                'speculative_config a "model"'
            )
        return model_argument(self.config.model)


def drafting_of(lowered: Lowered, pool: Pool) -> Drafting | None:
    """Return what a pool drafts; None if it keeps no drafter.

    Prefill instances draft nothing and compute the drafter's KV cache: they are started with it.
    """
    config = lowered.problem.speculative_config
    if config is None or pool.drafts == 0:
        return None
    if pool.role == "p":
        return Drafting(config, ((1, usual_drafts(config)),))
    lane = lowered.pool_lane(pool)[0]
    speculation: Speculation = lane.speculation
    return Drafting(config, speculation.schedule) if speculation.most else None


def vllm_words(lowered: Lowered, pool: Pool) -> list[str]:
    """Return `--speculative-config`, or nothing."""
    drafting = drafting_of(lowered, pool)
    if drafting is None:
        return []
    config = drafting.config
    said: dict[str, Any] = {"method": config.method}
    if config.drafter and (config.method != "mtp" or config.model):
        said["model"] = drafting.model()
    said["num_speculative_tokens"] = drafting.most
    for name in ("draft_tensor_parallel_size", "prompt_lookup_min", "prompt_lookup_max"):
        if getattr(config, name) is not None:
            said[name] = getattr(config, name)
    if len(drafting.schedule) > 1:
        said["num_speculative_tokens_per_batch_size"] = _rows(drafting.schedule)
    return ["--speculative-config", json.dumps(said)]


def _rows(schedule: tuple[tuple[int, int], ...]) -> list[list[int]]:
    """Return (from, to, drafts) of a schedule."""
    ends = [start - 1 for start, _ in schedule[1:]] + [LAST]
    return [[start, end, drafts] for (start, drafts), end in zip(schedule, ends, strict=True)]


def sglang_words(lowered: Lowered, pool: Pool) -> list[str]:
    """Return `--speculative-…` of a chain of drafts, or nothing. Raises InputError."""
    drafting = drafting_of(lowered, pool)
    if drafting is None:
        return []
    config = drafting.config
    if config.method not in ALGORITHMS:
        raise InputError(f"SGLang has no {config.method} decoding; it has {', '.join(ALGORITHMS)}")
    drafts = one_number(drafting, "SGLang")
    words = ["--speculative-algorithm", ALGORITHMS[config.method]]
    if config.drafter:
        if config.method != "mtp" or config.model:
            words += ["--speculative-draft-model-path", drafting.model()]
        words += ["--speculative-num-steps", str(drafts), "--speculative-eagle-topk", "1"]
    return [*words, "--speculative-num-draft-tokens", str(drafts + 1)]


def tensorrt_llm_config(lowered: Lowered, pool: Pool) -> dict[str, Any]:
    """Return `speculative_config` of TensorRT-LLM, or nothing. Raises InputError."""
    drafting = drafting_of(lowered, pool)
    if drafting is None:
        return {}
    config, drafts = drafting.config, drafting.most
    said: dict[str, Any] = {"max_draft_len": drafts}
    if len(drafting.schedule) > 1:
        if drafting.schedule[0][1] != drafts:
            raise InputError("TensorRT-LLM's tables draft most at one sequence; take -specN")
        # from how many sequences on, as 1.2 has it
        said["draft_len_schedule"] = dict(drafting.schedule)
    if config.method in ("eagle", "eagle3"):
        said |= {"speculative_model": drafting.model()}
        said |= {"decoding_type": "Eagle3" if config.method == "eagle3" else "Eagle"}
    elif config.method == "mtp":
        said = {"decoding_type": "MTP", "num_nextn_predict_layers": drafts}
    elif config.method == "draft_model":
        said |= {"decoding_type": "Draft_Target", "speculative_model": drafting.model()}
    elif config.method == "ngram":
        said |= {"decoding_type": "NGram"}
        if config.prompt_lookup_max is not None:
            said["max_matching_ngram_size"] = config.prompt_lookup_max
    else:
        raise InputError(f"TensorRT-LLM has no {config.method} decoding")
    return {"speculative_config": said}


def one_number(drafting: Drafting, engine: str) -> int:
    """Return the number of drafts for an engine without tables. Raises InputError for a table."""
    if len(drafting.schedule) > 1:
        raise InputError(
            f"{engine} drafts one number of tokens whatever the batch: take a strategy with -specN "
            "in place of -spectable"
        )
    return drafting.most
