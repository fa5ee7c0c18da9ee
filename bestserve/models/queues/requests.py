"""What the queues need to know of the requests: moments, survival functions, classes.

All of it is independent of rate and hardware, so one `Requests` serves a whole ranking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestserve.arrays import Floats
from bestserve.models.acceptance import PLAIN, Drafting, steps_of
from bestserve.models.system import Lengths

STEP_BINS = 512
"""Resolution of functions of the decode age; a bin is one step for outputs up to 512 tokens."""

MAX_CLASSES = 40
"""Output-length classes kept for mixtures; more change P99 of TPOT by less than 0.3 %."""


SHORT = 24
"""Decode steps up to which classes are whole numbers."""

MAX_PROMPTS = 192
"""Prompt atoms kept; traces have thousands."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Moments and tables of one workload; compared by identity, so that tables can be kept.

    prompt, cached, weight : distinct prompts: tokens to compute, tokens found in the cache, share
    p1, p2 : E[prompt], E[prompt²]; pairs : E[attention pairs of a prompt] [token²]
    asked, found : E[prompt + cached] and E[cached] of the prompts that are processed [tokens]
    kv1, kv2 : E[prompt + cached] [tokens] and E[(prompt + cached)²] of the requests that decode
    d1, d2 : E[D], E[D²] of the decode steps: D = output − 1, fewer where tokens are speculated
    context : mean context of a running sequence, length-biased [tokens]
    classes : mean decode steps of the output classes [c], ascending, none zero; class_tokens : what
        they decode, output − 1 [c] [tokens]; class_spread, class_third : variance and third central
        moment of the steps of each [c]; class_weight [c] sums to 1 over requests with D > 0;
        class_prompt: their mean prompt + cached [c]
    no_decode : share of requests that end with their first token
    width : decode steps per bin; survival : E[1{D ≥ j}] in bins [STEP_BINS]
    overlap : E[min(D', D)] per class, D' an independent copy [c]
    response : Fourier transforms of E[1{D ≥ j}] and E[(l + j) 1{D ≥ j}] per bin: real and
        imaginary part of the first, then of the second [4, f]
    power : spectra of their autocovariances: first, both, second (see `noise`) [3, f]
    steps, steps_weight, steps_kv : tokens decoded, their shares and E[(prompt + cached)^i] of the
        requests with them, i = 1, 2, 3 [q], [q], [3, q]
    independent : whether prompt and output lengths are drawn independently
    drafting : how many tokens a step yields
    """

    prompt: Floats
    cached: Floats
    weight: Floats
    p1: float
    p2: float
    pairs: float
    asked: float
    found: float
    kv1: float
    kv2: float
    d1: float
    d2: float
    context: float
    classes: Floats
    class_tokens: Floats
    class_spread: Floats
    class_third: Floats
    class_weight: Floats
    class_prompt: Floats
    no_decode: float
    width: float
    survival: Floats
    overlap: Floats
    response: Floats
    power: Floats
    steps: Floats
    steps_weight: Floats
    steps_kv: Floats
    independent: bool
    drafting: Drafting

    @property
    def fixed_prompt(self) -> bool:
        """Whether all prompts take the same number of tokens to compute."""
        return bool(self.prompt.size == 1)


@lru_cache(maxsize=16)
def prepare(lengths: Lengths, drafting: Drafting = PLAIN) -> Requests:
    """Return the tables of `lengths`; about 0.3 ms, kept for the most recent workloads.

    Where tokens are speculated, a running sequence's context grows by D/E[N] a step.
    """
    total = np.asarray(lengths.inputs, dtype=np.float64)
    p_in = np.asarray(lengths.input_weights, dtype=np.float64)
    cached = np.asarray(lengths.cached, dtype=np.float64)
    cached = cached if cached.size else np.zeros_like(total)
    prompt = np.maximum(total - cached, 1.0)
    decode = np.maximum(np.asarray(lengths.outputs, dtype=np.float64) - 1.0, 0.0)
    p_out = np.asarray(lengths.output_weights, dtype=np.float64)
    powers = np.stack((total, total**2, total**3))
    mean_kv, square_kv = float(p_in @ powers[0]), float(p_in @ powers[1])
    if lengths.joint:
        p_out, kv = p_in, powers
    else:
        kv = np.repeat((powers @ p_in)[:, None], decode.size, axis=1)
    tokens, p_out, kv = _whole_steps(decode, p_out, kv)
    kv1, kv2 = kv[0], kv[1]
    taken = steps_of(tokens, drafting)
    decode = taken.mean

    d1, d2 = float(p_out @ decode), float(p_out @ (decode**2 + taken.variance))
    busy = max(d1, 1e-12)
    context = float(p_out @ (kv1 * decode + tokens * (decode + 1) / 2)) / busy
    class_tokens, class_weight, class_prompt = _classes(tokens, p_out, kv1)
    classes, class_spread, class_third = steps_of(class_tokens, drafting)
    growth = float(p_out @ tokens) / busy if drafting.drafts else 1.0
    tables = _survival_tables(decode, p_out, kv1, kv2, growth)
    distinct, prompt_weight = _distinct(prompt, cached, p_in)
    return Requests(
        prompt=distinct[0],
        cached=distinct[1],
        weight=prompt_weight,
        p1=float(p_in @ prompt),
        p2=float(p_in @ prompt**2),
        pairs=float(p_in @ (prompt * cached + prompt**2 / 2)),
        asked=mean_kv,
        found=mean_kv - float(p_in @ prompt),
        kv1=mean_kv,
        kv2=square_kv,
        d1=d1,
        d2=d2,
        context=context,
        classes=classes,
        class_tokens=class_tokens,
        class_spread=class_spread,
        class_third=class_third,
        class_weight=class_weight,
        class_prompt=class_prompt,
        no_decode=float(p_out[tokens <= 0].sum()),
        width=tables["width"],
        survival=tables["survival"],
        overlap=np.interp(
            classes,
            tables["width"] * np.arange(STEP_BINS + 1),
            np.concatenate(([0.0], np.cumsum(tables["survival"]) * tables["width"])),
        ),
        response=tables["response"],
        power=tables["power"],
        steps=tokens,
        steps_weight=p_out,
        steps_kv=kv,
        independent=not lengths.joint,
        drafting=drafting,
    )


def decoupled(prompts: Requests, decodes: Requests) -> Requests:
    """Return the requests of a lane that decodes others than those whose prompts it processes."""
    own = ("prompt", "cached", "weight", "p1", "p2", "pairs", "asked", "found")
    return replace(decodes, **{name: getattr(prompts, name) for name in own})


def _whole_steps(decode: Floats, weight: Floats, kv: Floats) -> tuple[Floats, Floats, Floats]:
    """Return atoms whose short outputs are whole numbers of steps, the mean kept.

    An atom between two whole numbers stands for requests of both; with few steps, where TPOT
    depends on their number most, that makes a difference. What is next to a whole number is one:
    a 1e-15th of a step would take its whole wait per token. kv : one column an atom [i, q]
    """
    whole = np.round(decode)
    decode = np.where(np.abs(decode - whole) <= 1e-9, whole, decode)
    part = decode - np.floor(decode)
    cut = (part > 0) & (decode < SHORT)
    if not cut.any():
        return decode, weight, kv
    low = np.where(cut, np.floor(decode), decode)
    share = np.where(cut, 1.0 - part, 1.0)
    return (
        np.concatenate((low, low[cut] + 1.0)),
        np.concatenate((weight * share, (weight * part)[cut])),
        np.concatenate((kv, kv[:, cut]), axis=1),
    )


def _distinct(prompt: Floats, cached: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return distinct (prompt, cached) pairs [2, m] and their shares [m], m ≤ `MAX_PROMPTS`.

    Beyond that, neighbours by prompt are merged at their means.
    """
    pairs, index = np.unique(np.stack((prompt, cached)), axis=1, return_inverse=True)
    share = _sums(index.ravel(), weight)
    if share.size > MAX_PROMPTS:
        group = _quantile_groups(share, MAX_PROMPTS)
        merged = _sums(group, share)
        pairs = np.stack([_sums(group, row * share) / merged for row in pairs])
        share = merged
    return pairs, share


def _sums(group: NDArray[np.intp], values: Floats) -> Floats:
    """Return the sum of values in each group."""
    return np.asarray(np.bincount(group, weights=values), dtype=np.float64)


def _quantile_groups(share: Floats, count: int) -> NDArray[np.intp]:
    """Return groups of sorted atoms, narrow in both tails (sin² spacing of the quantiles)."""
    middle = (np.cumsum(share) - share / 2) / share.sum()
    edges = np.sin(np.pi * np.arange(1, count) / (2 * count)) ** 2
    _, group = np.unique(np.searchsorted(edges, middle), return_inverse=True)
    return group


def _classes(decode: Floats, weight: Floats, kv1: Floats) -> tuple[Floats, Floats, Floats]:
    """Return at most `MAX_CLASSES` classes of decode steps: mean steps, share, mean prompt.

    Bins are narrow in both tails (sin² spacing of the quantiles), where percentiles are read.
    """
    some = decode > 0
    if not some.any():
        return np.zeros(0), np.zeros(0), np.zeros(0)
    steps, index = np.unique(decode[some], return_inverse=True)
    share = _sums(index, weight[some])
    prompt = _sums(index, (weight * kv1)[some])
    if steps.size > MAX_CLASSES:
        group = _quantile_groups(share, MAX_CLASSES)
        steps = _sums(group, steps * share)
        share, prompt = _sums(group, share), _sums(group, prompt)
        steps = steps / share
    return steps, share / share.sum(), prompt / share


def _survival_tables(
    decode: Floats, weight: Floats, kv1: Floats, kv2: Floats, growth: float
) -> dict[str, Any]:
    """Return survival function, responses and autocovariance spectra by decode age.

    With s the age of the older of two steps u apart, the response of the step time to one request
    is α + k·(l + j) while it runs, so its autocovariance needs Σ_{s>u} E[(l+s−u)^a (l+s)^b 1{D≥s}].
    growth : tokens that a context grows per step, which j, s and u are multiplied by
    """
    width = max(1.0, float(decode.max(initial=1.0)) / STEP_BINS)
    order = np.argsort(decode)
    steps = decode[order]
    tail = np.stack((weight, weight * kv1, weight * kv2))[:, order]
    tail = np.concatenate((np.cumsum(tail[:, ::-1], axis=1)[:, ::-1], np.zeros((3, 1))), axis=1)
    edge = width * np.arange(STEP_BINS + 1, dtype=np.float64)
    # integral of the survival function over a bin, so that E[D] is kept exactly
    cumulative = np.stack([_integral(edge, steps, row) for row in tail])
    g0, g1, g2 = np.diff(cumulative, axis=1) / width
    age = growth * (edge[:-1] + (width + 1) / 2)

    def beyond(values: Floats) -> Floats:
        return np.cumsum(values[::-1])[::-1] * width

    u = growth * width * np.arange(STEP_BINS)
    f0, f1, f2 = g0, g1 + age * g0, g2 + 2 * age * g1 + age**2 * g0
    lag = np.stack(
        (
            beyond(f0),
            2 * beyond(f1) - u * beyond(f0),
            beyond(f2) - u * beyond(f1),
        )
    )
    size = 4 * STEP_BINS
    even = np.zeros((3, size))
    even[:, :STEP_BINS] = lag
    even[:, size - STEP_BINS + 1 :] += lag[:, :0:-1]
    first, second = np.fft.rfft(np.stack((f0, f1)), n=size, axis=1) * width
    return {
        "width": width,
        "survival": g0,
        "response": np.stack((first.real, first.imag, second.real, second.imag)),
        "power": np.ascontiguousarray(np.fft.rfft(even, axis=1).real),
    }


def _integral(at: Floats, steps: Floats, tail: Floats) -> Floats:
    """Return ∫_0^at tail(j) dj of the step function that drops to tail[i+1] after steps[i]."""
    knots = np.concatenate(([0.0], steps))
    area = np.concatenate(([0.0], np.cumsum(np.diff(knots) * tail[:-1])))
    return np.interp(at, knots, area)
