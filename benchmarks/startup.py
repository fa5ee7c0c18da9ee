"""Start-up cost of `import bestserve` and `bestserve --help`, as ratios to an empty Python start.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7
COMMANDS = {
    "python -c pass (baseline)": ["-c", "pass"],
    "import bestserve": ["-c", "import bestserve"],
    "import numpy": ["-c", "import numpy"],
    "bestserve --help": ["-m", "bestserve", "--help"],
    "rank, 16 GPUs, shell to table": [
        "-m", "bestserve", "rank", "--model", "meta-llama/Llama-3.1-70B", "--hardware", "h100-sxm",
        "--gpus", "16", "--input-len", "lognormal:2000,0.8", "--output-len", "lognormal:300,1",
        "--goodput", "ttft:1000", "tpot:50",
    ],
}  # fmt: skip


def median_seconds(arguments: list[str]) -> float:
    """Return the median wall time of a fresh interpreter with these arguments [s]."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments],
            check=True,
            capture_output=True,
            cwd=Path(__file__).parents[1],
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    measured = {name: median_seconds(arguments) for name, arguments in COMMANDS.items()}
    baseline = next(iter(measured.values()))
    print(f"{'':34}{'median [s]':>12}{'x baseline':>12}")
    for name, seconds in measured.items():
        print(f"{name:34}{seconds:12.3f}{seconds / baseline:12.1f}")


if __name__ == "__main__":
    main()
