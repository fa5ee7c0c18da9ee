"""The commands and manifests that put a plan into service, with the limits it was computed for.

A `Deployment` says what runs: instances with machines, GPUs and ports, a router, an address. Each
engine's file makes its commands (`vllm`, `sglang`, `tensorrt_llm`), each format's file writes them
out (`shell`, `compose`, `kubernetes`, `dynamo`, `kserve`, `llmd`); `benchmark` makes the run whose
log `bestserve validate` reads.
"""
