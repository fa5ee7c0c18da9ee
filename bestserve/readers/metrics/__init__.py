"""Metrics of a running server: fetched or read, then brought under our names."""
