"""How many GPUs of which type the cheapest fleet holds as the load grows."""

import matplotlib.pyplot as plt

import bestserve as bs

gpus = ({"hardware": "h100-sxm", "count": 8, "price_per_hour": 2.5},
        {"hardware": "l40s", "count": 8, "price_per_hour": 0.9})  # fmt: skip
rates = (5, 10, 20, 30, 40, 60, 80, 110)
used = []
for rate in rates:
    chat = {"name": "chat", "input_len": "lognormal:800,1", "output_len": "geometric:200",
            "slo": "ttft:500 tpot:40", "rate": rate}  # fmt: skip
    model = {"model": "meta-llama/Llama-3.1-8B", "classes": (chat,), "tensor_parallel_sizes": (1,)}
    fleet = bs.Fleet(gpus=gpus, models=(model,), objective="min_cost")
    used.append(bs.allocate(fleet, verify=False, certify=False).gpus_used)
for gpu in ("h100-sxm", "l40s"):
    plt.plot(rates, [plan.get(gpu, 0) for plan in used], "o-", label=gpu)
plt.xlabel("requests/s")
plt.ylabel("GPUs of the cheapest plan")
plt.legend()
plt.savefig("fleet_and_budget.png")
