"""A schedule for recorded load: an hour of Azure's conversations, and a day of ServeGen's clients.

    python examples/schedule_a_trace/schedule_a_trace.py [FOLDER] [OUTPUT]

FOLDER holds `azure_llm_2023/AzureLLMInferenceTrace_conv.csv` (github.com/Azure/AzurePublicDataset)
and `servegen/…-trace.csv` with `…-dataset.json` (arXiv 2505.09999); default ../shared/traces. What
is not there is named and left out. Pictures go to OUTPUT, default the current folder.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import bestserve as bs
from bestserve.results.schedule import Schedule

DAY = 86_400.0


def problem(trace: Path, hardware: str) -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware=hardware,
        gpus=32,
        workload=bs.Workload(trace=str(trace)),
        slo="ttft:2000 tpot:50",
    )


def azure(folder: Path) -> Schedule | None:
    """The recorded hour itself, in windows of five minutes."""
    trace = folder / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv"
    if not trace.is_file():
        return None
    options = bs.ScheduleOptions(window=300, headroom=0.1, start_time=60)
    return bs.schedule(problem(trace, "a10g"), strategy="1m-tp1", options=options)


def servegen(folder: Path) -> Schedule | None:
    """The last day of a client of m-large, whose lengths change with the hour; peak 60 req/s."""
    client = folder / "servegen" / "language_m-large_chunk-0-trace.csv"
    if not client.is_file():
        return None
    with tempfile.TemporaryDirectory() as one:
        for part in ("trace.csv", "dataset.json"):
            name = client.name.replace("trace.csv", part)
            shutil.copy(client.with_name(name), Path(one) / name)
        options = bs.ScheduleOptions(last=DAY, peak_rate=60, headroom=0.1)
        return bs.schedule(problem(Path(one), "l40s"), strategy="1p1d-tp1", options=options)


def main(folder: Path, output: Path) -> int:
    missing = 0
    for make in (azure, servegen):
        found = make(folder)
        if found is None:
            print(f"{make.__name__}: its traces are not in {folder}: left out", file=sys.stderr)
            missing += 1
            continue
        print(f"{make.__name__}: {found.explain()}\n")
        found.save(output / f"{make.__name__}.svg")
    return 1 if missing == 2 else 0


if __name__ == "__main__":
    default = Path(__file__).parents[2].parent / "shared" / "traces"
    words = [Path(word) for word in sys.argv[1:]]
    sys.exit(main(words[0] if words else default, words[1] if len(words) > 1 else Path()))
