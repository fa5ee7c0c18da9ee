"""How many tokens of KV cache each tensor-parallel size leaves."""

import matplotlib.pyplot as plt

import bestserve as bs

sizes = (4, 8)
models = ("meta-llama/Llama-3.1-70B", "Qwen/Qwen3-32B", "openai/gpt-oss-120b")
for place, name in enumerate(models):
    problem = bs.Problem(model=name, hardware="h100-sxm", gpus=8, slo="ttft:500 tpot:40",
                         workload=bs.Workload(input_len=1000, output_len=200))  # fmt: skip
    held = [bs.memory(problem, f"1m-tp{tp}").kv_tokens / 1e6 for tp in sizes]
    plt.bar([x + 0.25 * place for x in range(len(sizes))], held, 0.25, label=name)
plt.xticks([0.25, 1.25], [f"tp {tp}" for tp in sizes])
plt.ylabel("KV cache per instance [million tokens]")
plt.legend()
plt.savefig("memory_of_layouts.png")
