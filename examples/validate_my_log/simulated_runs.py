"""Write benchmark logs of a server that does not exist, so that the example runs anywhere.

    python examples/validate_my_log/simulated_runs.py FOLDER

Five closed-loop runs of Llama-3.1-8B on one H100, as `vllm bench serve` would have logged them,
from the simulator. The server's host is 2.5 times, its front end 3 times as slow as the preset:
that is what `bestserve calibrate` has to find. With your own logs, skip this script.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import bestserve as bs
from bestserve.catalog import load_engine
from bestserve.simulator import to_vllm_detailed

RUNS = ((1, 500, 100), (4, 1000, 100), (16, 1000, 100), (32, 4000, 50), (64, 500, 100))
"""Clients, prompt and output tokens."""


def main(folder: Path) -> None:
    """Simulate each run and write its log."""
    preset = load_engine("vllm-0.11")
    slow = replace(preset, a_step=2.5 * preset.a_step, t_req=3 * preset.t_req)
    folder.mkdir(parents=True, exist_ok=True)
    for clients, prompt, output in RUNS:
        problem = bs.Problem(
            model="meta-llama/Llama-3.1-8B",
            hardware="h100-sxm",
            gpus=1,
            engine=slow,
            workload=bs.Workload(
                input_len=f"uniform({prompt // 2}, {prompt})",
                output_len=output,
                max_concurrency=clients,
                num_prompts=10 * clients,
            ),
        )
        result = bs.simulate(problem, "1m-tp1")
        log = to_vllm_detailed(result, model_id="meta-llama/Llama-3.1-8B", date="20260101-000000")
        name = folder / f"c{clients}_in{prompt}.json"
        name.write_text(json.dumps(log), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python simulated_runs.py FOLDER")
    main(Path(sys.argv[1]))
