"""Queueing models, one family per file; arrays in, arrays out."""
