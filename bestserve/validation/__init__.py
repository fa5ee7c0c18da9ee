"""Measured runs: reading logs, replaying them, comparing and calibrating."""
