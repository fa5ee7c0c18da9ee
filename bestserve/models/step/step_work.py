"""The work in one engine step, or in many at once: prompt chunks and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike

from bestserve.arrays import Floats


@dataclass(frozen=True, slots=True)
class StepWork:
    """A vector of s steps; inside a step, weighted atoms of prompts (i) and of decodes (j).

    chunk, offset, prompts : float64[s, i]: `prompts` prompts that each get `chunk` tokens
        after `offset` processed (or cached) ones [tokens, tokens, 1]
    context, decodes : float64[s, j]: `decodes` sequences that each read `context` tokens
    finishing : float64[s], prompts whose last token is in this step: they need logits
    """

    chunk: Floats
    offset: Floats
    prompts: Floats
    context: Floats
    decodes: Floats
    finishing: Floats

    @staticmethod
    def grid(
        chunk: ArrayLike = 0.0,
        prompts: ArrayLike = 0.0,
        context: ArrayLike = 0.0,
        decodes: ArrayLike = 0.0,
        *,
        offset: ArrayLike = 0.0,
        finishing: ArrayLike | None = None,
    ) -> StepWork:
        """Return s steps with equal prompts and equal decodes in each; arguments broadcast.

        >>> work = StepWork.grid(context=[1000, 2000], decodes=8)
        >>> work.tokens, work.context_tokens
        (array([8., 8.]), array([ 8000., 16000.]))
        """
        last = prompts if finishing is None else finishing
        arrays = np.broadcast_arrays(
            *(
                np.atleast_1d(np.asarray(x, dtype=np.float64))
                for x in (chunk, offset, prompts, context, decodes, last)
            )
        )
        flat = [a.ravel()[:, None] for a in arrays]
        return StepWork(flat[0], flat[1], flat[2], flat[3], flat[4], flat[5][:, 0])

    @staticmethod
    def single(
        prompts: Sequence[tuple[float, float]] = (),
        contexts: Sequence[float] = (),
        *,
        finishing: float | None = None,
    ) -> StepWork:
        """Return one step: `prompts` as (chunk, offset) pairs, `contexts` of its decodes [tokens].

        >>> StepWork.single(prompts=[(512, 0), (100, 512)], contexts=[900]).tokens
        array([613.])
        """
        pairs = np.asarray(list(prompts), dtype=np.float64).reshape(-1, 2)
        reads = np.asarray(list(contexts), dtype=np.float64)
        return StepWork(
            pairs[None, :, 0],
            pairs[None, :, 1],
            np.ones((1, len(pairs))),
            reads[None, :],
            np.ones((1, len(reads))),
            np.array([float(len(pairs)) if finishing is None else finishing]),
        )

    def then(self, other: StepWork) -> StepWork:
        """Return these steps followed by others with as many prompts and decodes in each."""
        return StepWork(
            *(
                np.concatenate([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(StepWork)
            )
        )

    def spread(self, ranks: int) -> StepWork:
        """Return one rank's even share of the sequences; lengths stay."""
        if ranks == 1:
            return self
        return replace(
            self,
            prompts=self.prompts / ranks,
            decodes=self.decodes / ranks,
            finishing=self.finishing / ranks,
        )

    @property
    def prompt_tokens(self) -> Floats:
        """Σ chunk tokens [s]."""
        return np.einsum("si,si->s", self.prompts, self.chunk)

    @property
    def sequences_decoding(self) -> Floats:
        """Decodes in the step [s]."""
        return self.decodes.sum(axis=1)

    @property
    def sequences(self) -> Floats:
        """Sequences that take part: decodes and prompts that get tokens [s]."""
        return self.sequences_decoding + np.einsum("si,si->s", self.prompts, 1.0 * (self.chunk > 0))

    @property
    def emitting(self) -> Floats:
        """Sequences that emit a token [s]."""
        return self.sequences_decoding + self.finishing

    @property
    def tokens(self) -> Floats:
        """T: prompt tokens plus one per decode [s]."""
        return self.prompt_tokens + self.sequences_decoding

    @property
    def context_tokens(self) -> Floats:
        """K: decode context read by full attention [s]."""
        return np.einsum("sj,sj->s", self.decodes, self.context)

    @property
    def pairs(self) -> Floats:
        """A: (query, key) pairs of prompt chunks, Σ (q·p + q²/2) [s]."""
        return self.window_pairs(0.0)

    @property
    def longest_chunk(self) -> Floats:
        """Longest prompt chunk of the step [s] [tokens]."""
        used = np.where(self.prompts > 0, self.chunk, 0.0)
        return used.max(axis=1, initial=0.0)

    @property
    def prompt_reach(self) -> Floats:
        """Σ (offset + chunk): keys that prompt chunks attend to [s]."""
        reach = np.where(self.chunk > 0, self.chunk + self.offset, 0.0)
        return np.einsum("si,si->s", self.prompts, reach)

    def window_pairs(self, window: float) -> Floats:
        """Return Σ ∫ min(x, window) dx over [p, p + q] of every chunk [s]; window 0: unlimited."""
        start, end = self.offset, self.offset + self.chunk
        if window > 0:
            inside_end, inside_start = np.minimum(end, window), np.minimum(start, window)
            each = (inside_end**2 - inside_start**2) / 2 + window * (
                end - start - (inside_end - inside_start)
            )
        else:
            each = self.chunk * (self.offset + self.chunk / 2)
        return np.einsum("si,si->s", self.prompts, each)

    def window_context(self, window: float) -> Floats:
        """Return Σ min(context, window) over decodes [s]; window 0: unlimited."""
        reads = np.minimum(self.context, window) if window > 0 else self.context
        return np.einsum("sj,sj->s", self.decodes, reads)
