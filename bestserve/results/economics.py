"""What a strategy costs at a rate, in the words in which tokens are sold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """Tokens, money and energy of a strategy at its goodput.

    tokens_per_second : prompts and answers together [tokens/s]
    output_per_gpu : answer tokens per second and GPU; output_per_user : 1/TPOT, None for a
        fleet, whose users differ [tokens/s]
    usd_per_gpu_hour : price of a GPU, None where none is known; price : where it comes from
    usd_per_hour : of all GPUs
    usd_per_million_tokens : blended: the cost over all tokens [USD]
    usd_per_million_input, usd_per_million_output : the cost split by where the GPUs' time goes:
        steps that read prompts, and all else (idle time follows in the same proportion) [USD]
    joules_per_token : an estimate from board power and utilisation, of all tokens [J]
    """

    tokens_per_second: float
    output_per_gpu: float
    output_per_user: float | None = None
    usd_per_gpu_hour: float | None = None
    price: str = ""
    usd_per_hour: float | None = None
    usd_per_million_tokens: float | None = None
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    joules_per_token: float | None = None

    def records(self) -> dict[str, Any]:
        """Return the columns of a table; what is not known is left out."""
        columns = {
            "tokens_per_second": self.tokens_per_second,
            "output_per_gpu": self.output_per_gpu,
            "output_per_user": self.output_per_user,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_million_tokens": self.usd_per_million_tokens,
            "usd_per_million_input": self.usd_per_million_input,
            "usd_per_million_output": self.usd_per_million_output,
            "joules_per_token": self.joules_per_token,
        }
        return {name: value for name, value in columns.items() if value is not None}

    def explain(self) -> str:
        """Return one line: tokens, money with the price it rests on, energy as an estimate."""
        parts = [f"{self.tokens_per_second:,.0f} tokens/s"]
        if self.usd_per_million_tokens is not None:
            split = ""
            if self.usd_per_million_input is not None:
                split = f"input {self.usd_per_million_input:.3g}, "
                split += f"output {self.usd_per_million_output:.3g}; "
            parts.append(
                f"{self.usd_per_million_tokens:.3g} $ per million tokens ({split}{self.price})"
            )
        if self.joules_per_token is not None:
            parts.append(f"about {self.joules_per_token:.2g} J a token")
        return "; ".join(parts)
