"""How many prefill and decode instances serve a day whose load and lengths change."""

import math

import bestserve as bs

problem = bs.Problem(
    model="meta-llama/Llama-3.1-8B",
    hardware="l40s",
    gpus=32,
    workload=bs.Workload(input_len=1000, output_len=250),
    slo="ttft:1000 tpot:50",
)
day = [
    {
        "start": f"{hour:02d}:00",
        "request_rate": f"{5 - 4 * math.cos(hour / 12 * math.pi):.2f}",
        "input_len": "lognormal:2000,1" if 8 <= hour < 20 else "lognormal:800,1",
        "output_len": "lognormal:200,1" if 8 <= hour < 20 else "lognormal:900,1",
    }
    for hour in range(24)
]
options = bs.ScheduleOptions(headroom=0.05)
bs.schedule(problem, day, strategy="1p1d-tp1", options=options).save("instances_over_a_day.png")
