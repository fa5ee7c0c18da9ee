"""How wide the goodput is, and how often the winner wins, given what is uncertain."""

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=4,
    workload=bs.Workload(input_len="lognormal:800,1", output_len="geometric:200"),
    slo="ttft:500 tpot:40",
)
answer = bs.uncertainty(problem, strategies=["4m-tp1", "2m-tp2", "2p2d-tp1"], samples=24)
answer.save("how_sure.png")
