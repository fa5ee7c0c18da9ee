"""Allocate whole fleets: which GPUs run which model, in which role, at which parallelism.

`search` solves the mixed-integer programme on goodput tables and certifies the result.
"""
