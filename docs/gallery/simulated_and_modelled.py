"""Whether formulas and simulation agree, percentile by percentile."""

import matplotlib.pyplot as plt
import numpy as np

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=4,
    workload=bs.Workload(input_len="lognormal:800,1", output_len="geometric:200"),
    slo="ttft:500 tpot:40",
)
modelled = bs.predict(problem, "4m-tp1", request_rate=90, method="analytic")
simulated = bs.simulate(problem, "4m-tp1", 90)
names = ("p50", "p90", "p95", "p99")
for latency, colour in (("ttft", "C0"), ("e2el", "C1")):
    formula = [getattr(getattr(modelled, latency), name) for name in names]
    values = [np.nanquantile(getattr(simulated, latency), float(name[1:]) / 100) for name in names]
    plt.semilogy(names, formula, colour, label=f"{latency.upper()}, formula")
    plt.semilogy(names, values, f"{colour}o", label=f"{latency.upper()}, simulated")
plt.ylabel("seconds")
plt.legend()
plt.savefig("simulated_and_modelled.png")
