"""Write `bestserve/validation/length_tables.py`: the length laws of benchmark data sets.

    python validation/length_tables.py     # needs the traces and logs beside the checkout

A law is the mean prompt length of equally large groups of requests, ordered by prompt length, and
for each group the mean answer lengths of equally large parts, ordered by answer length.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("BESTSERVE_SHARED", HERE.parent.parent / "shared"))
TARGET = HERE.parent / "bestserve" / "validation" / "length_tables.py"
GROUPS = 8

HEADER = '''"""Length laws of benchmark data sets, from `validation/length_tables.py`: do not edit.

Of each law: the mean prompt [tokens] of eight equally large groups of requests, ordered by prompt,
and for each group the mean answers [tokens] of equally large parts, ordered by answer. An answer
of 0 is empty: the model ended it with its first token.
"""

from __future__ import annotations

Law = tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]

'''


def trace(name: str) -> tuple[Floats, Floats]:
    """Return prompt and answer lengths of a trace's summary [n]."""
    path = SHARED / "traces" / "length_distributions" / f"mlperf-data_summaries_{name}.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    inputs, outputs = (
        np.array([float(r[f"{side}_length"]) for r in rows]) for side in ("input", "output")
    )
    return inputs, outputs


def detailed_log(name: str) -> tuple[Floats, Floats]:
    """Return prompt and answer lengths of a detailed log of vLLM's client [n]."""
    with (SHARED / "logs" / "vllm_bench_serve" / name).open(encoding="utf-8") as file:
        found = json.load(file)
    return np.array(found["input_lens"], float), np.array(found["output_lens"], float)


def accelmark() -> Floats:
    """Return the prompt lengths of the 300 requests that AccelMark's online runs send [n]."""
    path = SHARED / "traces" / "accelmark_sharegpt" / "sharegpt_standard_v1_input_lengths.csv"
    with path.open(encoding="utf-8") as file:
        return np.array([float(row["input_tokens"]) for row in csv.DictReader(file)][:300])


def law(inputs: Floats, outputs: Floats, parts: int) -> tuple[list[float], list[list[float]]]:
    """Return the groups' mean prompts and their parts' mean answers; empty answers stay empty."""
    order = np.argsort(inputs, kind="stable")
    means: list[float] = []
    answers: list[list[float]] = []
    for group in np.array_split(order, GROUPS):
        means.append(round(float(inputs[group].mean()), 1))
        row = []
        for part in np.array_split(np.sort(outputs[group]), parts):
            spoken = part[part > 0]
            blank = 2 * len(spoken) < len(part)
            row.append(0.0 if blank else round(float(spoken.mean()), 1))
        answers.append(row)
    return means, answers


def main() -> None:
    """Write the module."""
    laws = (
        ("OPEN_ORCA", trace("llama2-70b-99"), 10,
         "24,576 OpenOrca samples of MLPerf's Llama-2-70B benchmark."),
        ("MIXTRAL_MIX", trace("mixtral-8x7b"), 10,
         "15,000 samples (OpenOrca, GSM8K, MBXP) of MLPerf's Mixtral-8x7B benchmark."),
        ("SHAREGPT_BASE", detailed_log("v0.6.3_detailed_llama405b_8xH100_16qps.json"), 12,
         "1,000 ShareGPT prompts completed by the base model Llama-3.1-405B, which ends 38 % of\n"
         "them at once (a detailed log of vLLM 0.6.3)."),
    )  # fmt: skip
    lines = [HEADER]
    for name, (inputs, outputs), parts, text in laws:
        means, answers = law(inputs, outputs, parts)
        lines.append(f"{name}: Law = (\n    ({', '.join(map(str, means))}),\n    (\n")
        lines += [f"        ({', '.join(map(str, row))}),\n" for row in answers]
        lines.append(f'    ),\n)\n"""{text}"""\n\n')
    prompts = [round(float(part.mean()), 1) for part in np.array_split(np.sort(accelmark()), 20)]
    lines.append(f"ACCELMARK_PROMPTS: tuple[float, ...] = ({', '.join(map(str, prompts))})\n")
    lines.append(
        '"""Mean prompts of 20 equal parts of AccelMark\'s sharegpt_standard_v1 [tokens]."""\n'
    )
    TARGET.write_text("".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
