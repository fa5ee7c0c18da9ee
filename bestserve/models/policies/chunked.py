"""Chunked prefill (Sarathi-Serve; vLLM V1): decodes first, prompts fill the budget.

Every running request takes one token of the budget; what remains goes to waiting prompts in
order, and the last of them is split. Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM
Inference with Sarathi-Serve", OSDI 2024, §4.
"""

from __future__ import annotations

from bestserve.models.policies import Policy

POLICY = Policy(name="chunked", splits=True, rides=True)
