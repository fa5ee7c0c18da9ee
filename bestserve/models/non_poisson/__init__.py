"""Arrivals that are not Poisson, and routing that makes lanes depend on each other."""
