"""How TTFT, TPOT and the share of good requests grow with the rate."""

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=4,
    workload=bs.Workload(input_len="lognormal:800,1", output_len="geometric:200"),
    slo="ttft:500 tpot:40",
)
bs.curves(problem, ["4m-tp1", "2p2d-tp1"], points=12).save("latency_over_rate.png")
