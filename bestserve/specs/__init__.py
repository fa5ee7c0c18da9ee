"""Frozen inputs, validated once: what a user asks, in the field's words."""
