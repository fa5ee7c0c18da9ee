"""Length laws of the data sets that benchmark clients send, scaled to the means a row states."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.system import Lengths
from bestserve.readers.tidy import TidyRow
from bestserve.specs.lengths import Fixed, LengthLaw, LogNormal, Uniform
from bestserve.validation.length_tables import (
    ACCELMARK_PROMPTS,
    MIXTRAL_MIX,
    OPEN_ORCA,
    SHAREGPT_BASE,
    Law,
)
from bestserve.validation.outcome import Noted, Outcome, UnpredictableError
from bestserve.validation.sources import Suite

# Quantiles of lengths over their mean at 0, 5, 10, 20 … 90, 95, 98, 100 %: 1,000 ShareGPT
# requests as `vllm bench serve` filters them (a detailed log of vLLM 0.6.3, Llama-3.1-405B).
_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
_SHAREGPT_INPUT = (
    0.019, 0.037, 0.046, 0.070, 0.112, 0.198, 0.386, 0.973, 1.465, 1.981, 2.887, 3.513, 3.578,
    4.633,
)  # fmt: skip
_SHAREGPT_OUTPUT = (
    0.005, 0.026, 0.057, 0.123, 0.268, 0.581, 0.870, 1.111, 1.446, 1.703, 2.151, 2.655, 3.219,
    4.013,
)  # fmt: skip
# The same for prompts of about 28,000 tokens: AccelMark's long-context set, from the quartiles and
# the 99th percentile that its suite file states, the lowest assumed.
_LONG_CONTEXT = (
    0.95, 0.96, 0.965, 0.975, 0.985, 0.995, 1.0, 1.007, 1.014, 1.022, 1.03, 1.036, 1.04, 1.045,
)  # fmt: skip
ATOMS = 64

CHAT_CV = 0.75
"""Coefficient of variation of answers where only their mean is known (OpenOrca, MLPerf); assumed,
between ShareGPT's 0.88 and the 0.6 of answers cut at a limit."""

EARLY = 24.0
"""Mean length of the answers that end early to prompts of random tokens [tokens]; from the means of
gpt-oss-120b under limits of 128 and 2,048 tokens, which one share and one early mean explain."""

UNCUT_CV = 1.8
"""The same of answers before a limit cuts four in ten of them (AccelMark); chosen by the tail of
TPOT, which the shortest answers make: 1.2 to 2.5 fit alike."""

LONG_CV, LONG_PROMPT = 0.6, 20_000.0
"""Spread and longest prompt [tokens] of MLPerf's Llama-3.1-405B set (LongBench, RULER, GovReport);
its rules cut prompts at 20,000 tokens. The spread is assumed."""

LONGEST = 3.5
"""Longest request over the mean where answers are cut at a limit (OpenOrca: 1,024 over 294)."""


def lengths_of(row: TidyRow, suite: Suite) -> Noted[Lengths]:
    """Return the lengths of a row's requests: the log's own, or a law with the stated means.

    Raises `UnpredictableError` if neither means nor asked lengths nor medians are stated.
    """
    log = row.requests
    if log is not None and log.input_len is not None and log.output_len is not None:
        weights = np.full(len(log.input_len), 1.0 / len(log.input_len))
        own = Lengths(
            inputs=np.maximum(log.input_len.astype(np.float64), 1.0),
            input_weights=weights,
            outputs=np.maximum(log.output_len.astype(np.float64), 1.0),
            output_weights=weights,
            joint=True,
        )
        return Noted(own)
    data = (row.dataset_or_lengths or "").lower()
    table = _table_of(row, data, suite)
    if table is not None and row.input_len_mean and row.output_len_mean:
        return Noted(table_lengths(table, row.input_len_mean, row.output_len_mean))
    inputs = _side(row, "input_len", data, suite)
    outputs = _side(row, "output_len", data, suite)
    law = Lengths(
        inputs=inputs.value[0],
        input_weights=inputs.value[1],
        outputs=outputs.value[0],
        output_weights=outputs.value[1],
    )
    return Noted(law, (*inputs.notes, *outputs.notes, *_in_step(row, law)))


def _in_step(row: TidyRow, law: Lengths) -> tuple[str, ...]:
    """Return what to say where nobody stated a data set, and lengths are taken as alike.

    Clients that wait for answers of one length all send at once, again and again.
    """
    known = row.dataset_or_lengths or row.input_len_asked or row.output_len_asked
    alike = max(len(set(np.floor(x))) for x in (law.inputs, law.outputs)) <= 2
    stated = row.input_len_std is not None or row.output_len_std is not None
    if known or stated or not alike or (row.concurrency or 1) == 1:
        return ()
    return (
        "lengths taken as all alike, so that clients send in step, in bursts, which decide TTFT: "
        "state the spread with --input-len-std, --output-len-std",
    )


def _table_of(row: TidyRow, data: str, suite: Suite) -> Law | None:
    """Return the joint law of a row's data set, where one is known."""
    if suite.base_model and "sharegpt" in data:
        return SHAREGPT_BASE
    if suite.chat_lengths and "orca" in data:
        return MIXTRAL_MIX if "gsm8k" in data else OPEN_ORCA
    return None


def table_lengths(table: Law, mean_input: float, mean_output: float) -> Lengths:
    """Return a joint law scaled to these means [tokens]; empty answers are one token, the end."""
    prompts, answers = table
    parts = len(answers[0])
    inputs = np.repeat(np.array(prompts), parts)
    outputs = np.array(answers).ravel()
    outputs = outputs * (mean_output / outputs.mean())
    weights = np.full(len(inputs), 1.0 / len(inputs))
    return Lengths(
        inputs=np.maximum(inputs * (mean_input / inputs.mean()), 1.0),
        input_weights=weights,
        outputs=np.maximum(outputs, 1.0),
        output_weights=weights,
        joint=True,
    )


def _side(row: TidyRow, side: str, data: str, suite: Suite) -> Noted[tuple[Floats, Floats]]:
    mean: float | None = getattr(row, f"{side}_mean")
    asked: float | None = getattr(row, f"{side}_asked")
    limits: tuple[float, float] | None = getattr(row, f"{side}_range")
    median: float | None = getattr(row, f"{side}_p50")
    spread: float | None = getattr(row, f"{side}_std")
    highest = row.output_len_max if side == "output_len" else None
    if "standard_v1" in data and suite.output_mean is not None:
        if side == "output_len" and mean is None:
            return Noted(cut_atoms(suite.output_mean, UNCUT_CV, highest or math.inf))
        if side == "input_len":
            prompts = np.array(ACCELMARK_PROMPTS)
            prompts = prompts * ((mean or prompts.mean()) / prompts.mean())
            return Noted((prompts, np.full(len(prompts), 1.0 / len(prompts))))
    if "longctx" in data and side == "input_len" and mean is None and median is not None:
        return Noted(quantile_atoms(_LONG_CONTEXT, median))
    if mean is None and asked is None and limits is None and median is None:
        raise UnpredictableError(Outcome.LENGTHS_MISSING, side)
    if "sharegpt" in data and median is None:
        shape = _SHAREGPT_INPUT if side == "input_len" else _SHAREGPT_OUTPUT
        return Noted(quantile_atoms(shape, mean or asked or 1.0))
    if side == "output_len" and row.ignore_eos is False and asked and mean:
        if mean >= 0.98 * asked:
            return Noted(_law(Fixed(round(asked))))
        note = "output lengths: some answers end early, the others reach the asked length"
        return Noted(early_or_full_atoms(mean, asked, _timed_out(row)), (note,))
    if suite.spread is not None and suite.spread < 1 and asked:
        return Noted(_law(Uniform(max(1, round(suite.spread * asked)), round(asked))))
    if limits is not None and limits[0] < limits[1]:
        low, high = limits
        if mean is not None:  # a short run's sample differs from the law it is drawn from
            high = max(2 * mean - low, low)
            low = min(low, high)
        return Noted(_law(Uniform(max(1, round(low)), max(1, round(high)))))
    if median is not None:
        if highest is not None and median >= highest:
            return Noted(_law(Fixed(round(highest))))
        return median_atoms(row, side, median, mean, highest)
    value = mean if mean is not None else asked
    assert value is not None
    if spread is not None and spread > 0.02 * value:
        return Noted(_law(LogNormal(value, cv=min(spread / value, 5.0))))
    if "longbench" in data and side == "input_len":
        return Noted(truncated_atoms(value, LONG_CV, LONG_PROMPT))
    if suite.chat_lengths or "orca" in data:
        return Noted(truncated_atoms(value, CHAT_CV, max(1024.0, LONGEST * value)))
    return Noted(whole_atoms(value))


def _law(law: LengthLaw) -> tuple[Floats, Floats]:
    atoms: tuple[Floats, Floats] = law.atoms(ATOMS)
    return atoms


def whole_atoms(value: float) -> tuple[Floats, Floats]:
    """Return the two whole lengths around `value` whose mean it is [tokens]."""
    low = math.floor(value)
    if value == low or value < 1:
        return np.array([max(1.0, float(low))]), np.ones(1)
    return np.array([max(1.0, float(low)), low + 1.0]), np.array([low + 1 - value, value - low])


def quantile_atoms(shape: Sequence[float], mean: float) -> tuple[Floats, Floats]:
    """Return atoms of a law with these quantiles at `_LEVELS`, scaled to `mean` [tokens]."""
    u = (np.arange(ATOMS) + 0.5) / ATOMS
    lengths = np.interp(u, _LEVELS, shape)
    lengths = np.maximum(lengths * (mean / lengths.mean()), 1.0)
    return lengths, np.full(ATOMS, 1 / ATOMS)


def early_or_full_atoms(mean: float, asked: float, lost: float = 0.0) -> tuple[Floats, Floats]:
    """Return atoms of answers that end early or run on to the asked length [tokens].

    mean : of the answers that came; lost : share of requests that ran on and never came [1]

    Prompts of random tokens either make a model stop soon (exponential, mean `EARLY`, cut at the
    asked length) or never: the share that stops follows from the mean. The last atom is the asked
    length.
    """
    u = (np.arange(ATOMS) + 0.5) / ATOMS
    early = np.minimum(-np.log1p(-u) * min(EARLY, mean), asked)
    if lost > 0:
        full = lost
        early = early * (mean / early.mean())
    else:
        full = max(0.0, (mean - early.mean()) / (asked - early.mean()))
    lengths = np.clip(np.append(early, asked), 1.0, asked)
    return lengths, np.append(np.full(ATOMS, (1.0 - full) / ATOMS), full)


def blank_answers(row: TidyRow, suite: Suite) -> bool:
    """Return whether some answers of a row's data set are empty, and the client counts them."""
    data = (row.dataset_or_lengths or "").lower()
    return suite.base_model and "sharegpt" in data


def _timed_out(row: TidyRow) -> float:
    """Return the share of a run's requests that did not complete [1]."""
    if not row.num_prompts or row.completed is None:
        return 0.0
    return max(0.0, 1.0 - row.completed / row.num_prompts)


def truncated_atoms(mean: float, cv: float, highest: float) -> tuple[Floats, Floats]:
    """Return atoms of a lognormal law cut at `highest`, scaled to `mean` [tokens]."""
    lengths, weights = LogNormal(mean, cv=cv).atoms(ATOMS)
    lengths = np.minimum(lengths, highest)
    lengths = np.clip(lengths * (mean / float(lengths @ weights)), 1.0, None)
    return lengths, weights


def cut_atoms(mean: float, cv: float, highest: float) -> tuple[Floats, Floats]:
    """Return atoms of a lognormal law cut at `highest`, with mean `mean` after the cut [tokens]."""
    if not mean < highest:
        return _law(Fixed(round(highest)))
    low, high = mean, 100.0 * mean
    for _ in range(60):
        middle = math.sqrt(low * high)
        lengths, weights = LogNormal(middle, cv=cv).atoms(ATOMS)
        lengths = np.clip(lengths, 1.0, highest)
        low, high = (middle, high) if float(lengths @ weights) < mean else (low, middle)
    return lengths, weights


def median_atoms(
    row: TidyRow,
    side: str,
    median: float,
    mean: float | None,
    highest: float | None,
) -> Noted[tuple[Floats, Floats]]:
    """Return atoms of a lognormal law about a median, cut at `highest` [tokens].

    A stated mean above the median sets the spread; a mean below it is of another count of the
    same text, so the mean is kept and the spread of chat answers taken.
    """
    notes: tuple[str, ...] = ()
    if mean is not None and mean > median:
        sigma = math.sqrt(2 * math.log(mean / median))
        cv = math.sqrt(math.expm1(sigma**2))
        value = mean
    else:
        cv, value = CHAT_CV, (mean if mean is not None else median * math.hypot(1, CHAT_CV))
        notes = (f"{side}: spread of chat text assumed (cv {CHAT_CV:g})",)
    if highest is None:
        highest = float(row.max_model_len or 1 << 20)
    lengths, weights = LogNormal(value, cv=cv).atoms(ATOMS)
    return Noted((np.clip(lengths, 1.0, highest), weights), notes)
