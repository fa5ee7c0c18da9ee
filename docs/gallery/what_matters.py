"""Which figure of workload, GPU and engine moves the answer most."""

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=4,
    workload=bs.Workload(input_len="lognormal:800,1", output_len="geometric:200"),
    slo="ttft:500 tpot:40",
)
bs.sensitivity(problem, "4m-tp1").save("what_matters.png")
