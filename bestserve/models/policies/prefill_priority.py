"""Prefill-priority (Orca-style separate batches; vLLM V0, SGLang): prompts interrupt decodes.

While prompts wait and can be admitted, a step takes whole prompts up to the budget, at least
one, and decodes wait. Yu et al., "Orca", OSDI 2022, §4; SGLang's default scheduler.
"""

from __future__ import annotations

from bestserve.models.policies import Policy

POLICY = Policy(name="prefill_priority", splits=False, rides=False)
