"""Goodput over a grid of objectives, and where the winner changes."""

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=4,
    workload=bs.Workload(input_len="lognormal:800,1", output_len="geometric:200"),
    slo="ttft:500 tpot:40",
)
axes = {"slo.ttft": ["150ms", "300ms", "600ms"], "slo.tpot": ["10ms", "20ms", "40ms"]}
bs.sweep(problem, axes, strategies=["4m-tp1", "2m-tp2", "2p2d-tp1"]).save("grid_of_objectives.png")
