"""Scheduler policies, one per file, each composing families of `bestserve.models.queues`."""
