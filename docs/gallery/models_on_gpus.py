"""How many requests per second one GPU of each type carries, and at what price."""

import matplotlib.pyplot as plt

import bestserve as bs

names = ("a100-sxm-80gb", "h100-sxm", "h200-sxm", "mi300x", "l40s")
carried = []
for name in names:
    problem = bs.Problem(model="meta-llama/Llama-3.1-8B", hardware=name, gpus=1,
                         workload=bs.Workload(input_len="lognormal:800,1", output_len=200),
                         slo="ttft:500 tpot:40")  # fmt: skip
    carried.append(bs.goodput(problem, "1m-tp1").goodput)
plt.barh(names, carried)
plt.xlabel("goodput [requests/s]")
plt.tight_layout()
plt.savefig("models_on_gpus.png")
