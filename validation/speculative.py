"""Speculative decoding against measurements: TPOT, the speed-up, and whether drafts pay.

Replays the public pairs of runs with and without drafts of `../shared/measured/measured_dev2.csv`,
gpt-oss-120b on one H200 under vLLM 0.22 with EAGLE-3, at the acceptance that each run measured, and
writes `validation/speculative.md`. `draft_step` and `draft_pass` of the preset were read off the
two runs of one client; nothing else was fitted: the expert kernel's constants come from operator
tables (`bestserve/data/engines/vllm.toml`).

    python validation/speculative.py
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bestserve.readers.logs import read_log
from bestserve.readers.tidy import TidyRow
from bestserve.validation.outcome import UnpredictableError
from bestserve.validation.replay import measured_figures, predict_row, prepare

HERE = Path(__file__).parent
ROWS = HERE.parent / "../shared/measured/measured_dev2.csv"
PAIRED = "inferencex-profiling"
CLOSE = 0.02
"""Speed-ups between 1 − CLOSE and 1 + CLOSE say neither that drafts pay nor that they cost."""


@dataclass(frozen=True)
class Run:
    """One run: clients, drafts, tokens a step as measured, TPOT and TTFT measured and predicted."""

    clients: int
    drafts: int
    length: float
    measured: dict[str, float]
    predicted: dict[str, float]

    def error(self, figure: str) -> float:
        """Return predicted over measured, less 1."""
        return self.predicted[figure] / self.measured[figure] - 1.0


def replayed(row: TidyRow) -> Run:
    """Return a run with its prediction. Raises UnpredictableError."""
    predicted = predict_row(prepare(row))[0]
    return Run(
        clients=int(row.concurrency or 0),
        drafts=row.draft_tokens or 0,
        length=row.accept_length or 1.0,
        measured=measured_figures(row),
        predicted=predicted,
    )


def speedups(runs: list[Run]) -> list[tuple[Run, float, float]]:
    """Return each drafting run with TPOT of its plain twin over its own, measured and predicted."""
    plain = {run.clients: run for run in runs if run.drafts == 0}
    return [
        (run, *(
            getattr(plain[run.clients], kind)["tpot_mean_ms"] / getattr(run, kind)["tpot_mean_ms"]
            for kind in ("measured", "predicted")
        ))
        for run in runs
        if run.drafts
    ]  # fmt: skip


def costing(fast: list[tuple[Run, float, float]], drafts: int) -> str:
    """Return at which loads so many drafts cost, as measured and as predicted."""
    said = []
    for at, word in ((1, "measured"), (2, "predicted")):
        some = sorted(row[0].clients for row in fast if row[0].drafts == drafts and row[at] < 1)
        said.append(f"{word}: {', '.join(map(str, some)) or 'never'}")
    slower = f"- {drafts} drafts make tokens slower than none at these numbers of clients: "
    return slower + "; ".join(said)


def median(values: list[float]) -> float:
    """Return the median magnitude."""
    return float(np.median(np.abs(values)))


def report(runs: list[Run], left_out: dict[str, Counter[str]]) -> str:
    """Return the page; left_out : models and engines by why their runs are not compared."""
    fast = speedups(runs)
    drafting, plain = [r for r, *_ in fast], [r for r in runs if not r.drafts]
    clear = [(m, p) for _, m, p in fast if abs(m - 1) > CLOSE]
    right = sum((m > 1) == (p > 1) for m, p in clear)
    gains = [p / m - 1 for _, m, p in fast]
    lines = [
        "# Speculative decoding against measurements",
        "",
        "Written by `validation/speculative.py`. gpt-oss-120b on one H200, vLLM 0.22, EAGLE-3 with "
        "3 and 7 drafts and without, 1 to 256 clients that each wait for their answer, 8,000-token "
        "prompts and 1,000-token answers of random tokens; acceptance by position as each run "
        "measured it. The two costs of drafting in the preset come from the runs of one client; "
        "the other figures are predictions. Errors are predicted over measured, less 1.",
        "",
        "| | runs | median | largest |",
        "| --- | --- | --- | --- |",
    ]
    for name, some, figure in (
        ("mean TPOT without drafts", plain, "tpot_mean_ms"),
        ("mean TPOT with drafts", drafting, "tpot_mean_ms"),
        ("P90 of TPOT with drafts", drafting, "tpot_p90_ms"),
        ("mean TTFT with drafts", drafting, "ttft_mean_ms"),
    ):
        errors = [run.error(figure) for run in some]
        worst = max(errors, key=abs)
        lines.append(f"| {name} | {len(errors)} | {median(errors):.1%} | {worst:+.1%} |")
    lines += [
        f"| speed-up, TPOT without over with drafts | {len(gains)} | {median(gains):.1%} | "
        f"{max(gains, key=abs):+.1%} |",
        "",
        f"Whether drafts pay is right in {right} of {len(clear)} pairs; {len(fast) - len(clear)} "
        f"pairs differ by less than {CLOSE:.0%} and say neither.",
        "",
        *(costing(fast, drafts) for drafts in sorted({r.drafts for r in drafting})),
        "",
        "| clients | drafts | tokens a step | TPOT measured | predicted | error | "
        "speed-up measured | predicted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run, measured, predicted in sorted(fast, key=lambda x: (x[0].drafts, x[0].clients)):
        lines.append(
            f"| {run.clients} | {run.drafts} | {run.length:.2f} | "
            f"{run.measured['tpot_mean_ms']:.2f} ms | {run.predicted['tpot_mean_ms']:.2f} ms | "
            f"{run.error('tpot_mean_ms'):+.1%} | {measured:.2f} | {predicted:.2f} |"
        )
    lines += ["", "Other speculative runs of the file, and why they are left out:", ""]
    for why, models in sorted(left_out.items()):
        named = ", ".join(f"{count} of {model}" for model, count in sorted(models.items()))
        lines.append(f"- {why}: {named}")
    lines += [
        "",
        "Five runs of `measured_dev.csv` (m02627, m02628, m02629: DeepSeek-V3.2; m02649, m02650: "
        "GLM-5) are speculative and recorded as plain: `accuracy.py` leaves them out.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Replay and write the page."""
    runs: list[Run] = []
    left_out: dict[str, Counter[str]] = {}
    for row in read_log(ROWS).rows:
        paired = PAIRED in (row.source or "")
        if not paired and not row.speculative_decoding:
            continue
        try:
            if paired:
                runs.append(replayed(row))
                continue
            prepare(row)
            why = "no twin without drafts at the same load"
        except UnpredictableError as error:
            why = error.detail
        model = str(row.model).rsplit("/", 1)[-1]
        left_out.setdefault(why, Counter())[f"{model} ({row.engine})"] += 1
    (HERE / "speculative.md").write_text(report(runs, left_out))


if __name__ == "__main__":
    main()
