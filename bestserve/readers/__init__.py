"""Readers of strangers' files: bounded, typed, refusing in one line."""
