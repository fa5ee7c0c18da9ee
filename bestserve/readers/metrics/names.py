"""How each engine calls what we look at, newest name first.

From vLLM 0.33 (`v1/metrics/loggers.py`) and earlier ones, SGLang 0.5.23
(`observability/metrics_collector.py`), TensorRT-LLM 1.2 (`trtllm_*` of `/prometheus/metrics`) and
Dynamo's frontend 1.3. KServe prefixes vLLM's with `kserve_`.
"""

from __future__ import annotations

from collections.abc import Mapping

Names = Mapping[str, tuple[str, ...]]

VLLM: Names = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "finished": ("vllm:request_success_total",),
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "output_tokens": ("vllm:generation_tokens_total",),
    "cache_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "cache_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "preemptions": ("vllm:num_preemptions_total",),
    "drafts": ("vllm:spec_decode_num_drafts_total",),
    "accepted": ("vllm:spec_decode_num_accepted_tokens_total",),
    "input_len": ("vllm:request_prompt_tokens",),
    "output_len": ("vllm:request_generation_tokens",),
    "ttft": ("vllm:time_to_first_token_seconds",),
    "tpot": ("vllm:request_time_per_output_token_seconds",),
    "itl": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "e2el": ("vllm:e2e_request_latency_seconds",),
}
SGLANG: Names = {
    "running": ("sglang:num_running_reqs",),
    "waiting": ("sglang:num_queue_reqs",),
    "kv_usage": ("sglang:token_usage",),
    "hit_rate": ("sglang:cache_hit_rate",),
    "finished": ("sglang:num_requests_total",),
    "prompt_tokens": ("sglang:prompt_tokens_total",),
    "output_tokens": ("sglang:generation_tokens_total",),
    "cache_queries": ("sglang:prompt_tokens_total",),
    "cache_hits": ("sglang:cached_tokens_total",),
    "preemptions": ("sglang:num_retracted_requests_total",),
    "accept_length": ("sglang:spec_accept_length",),
    "input_len": ("sglang:prompt_tokens_histogram",),
    "output_len": ("sglang:generation_tokens_histogram",),
    "ttft": ("sglang:time_to_first_token_seconds",),
    "tpot": ("sglang:request_time_per_output_token_seconds",),
    "itl": ("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
    "e2el": ("sglang:e2e_request_latency_seconds",),
}
TENSORRT_LLM: Names = {
    "running": ("trtllm_num_requests_running", "trtllm_num_active_requests"),
    "waiting": ("trtllm_num_requests_waiting", "trtllm_server_queue_length"),
    "kv_usage": ("trtllm_kv_cache_utilization",),
    "hit_rate": ("trtllm_kv_cache_hit_rate",),
    "finished": ("trtllm_request_success_total",),
    "prompt_tokens": ("trtllm_prompt_tokens_total",),
    "cache_queries": ("trtllm_prompt_tokens_total",),
    "cache_hits": ("trtllm_prompt_cached_tokens_total",),
    "ttft": ("trtllm_time_to_first_token_seconds",),
    "tpot": ("trtllm_time_per_output_token_seconds",),
    "e2el": ("trtllm_e2e_request_latency_seconds",),
}
DYNAMO: Names = {
    "running": ("dynamo_frontend_inflight_requests",),
    "queued": ("dynamo_frontend_queued_requests",),
    "finished": ("dynamo_frontend_requests_total",),
    "output_tokens": ("dynamo_frontend_output_tokens_total",),
    "input_len": ("dynamo_frontend_input_sequence_tokens",),
    "output_len": ("dynamo_frontend_output_sequence_tokens",),
    "cached_len": ("dynamo_frontend_cached_tokens",),
    "ttft": ("dynamo_frontend_time_to_first_token_seconds",),
    "itl": ("dynamo_frontend_inter_token_latency_seconds",),
    "e2el": ("dynamo_frontend_request_duration_seconds",),
}
SERVERS: Mapping[str, Names] = {
    "Dynamo": DYNAMO,
    "vLLM": VLLM,
    "SGLang": SGLANG,
    "TensorRT-LLM": TENSORRT_LLM,
}
"""By server; a frontend comes before the engines behind it, whose figures it counts as well."""
MODEL_LABELS = ("model_name", "model")
