"""Mixed batching of whole prompts (TensorRT-LLM in-flight batching without chunked context).

A step has all decodes and, in order, whole prompts as long as the budget holds them. The first
prompt always goes: TensorRT-LLM refuses prompts beyond `max_num_tokens`, and users set it to
the longest prompt plus the batch size, where both rules agree.
"""

from __future__ import annotations

from bestserve.models.policies import Policy

POLICY = Policy(name="mixed", splits=False, rides=True)
