"""What other prompts, another GPU or a stricter objective would change."""

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=4,
    workload=bs.Workload(input_len="lognormal:800,1", output_len="geometric:200"),
    slo="ttft:500 tpot:40",
)
scenarios = (
    {"gpus": 8},
    {"hardware": "h200-sxm"},
    {"workload.input_len": 1600},
    {"slo.tpot": "25ms"},
)
bs.what_if(problem, scenarios).save("what_if.png")
