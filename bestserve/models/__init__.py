"""Analytic models: pure functions of numbers and arrays, no I/O, no pydantic."""
