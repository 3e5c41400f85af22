"""Frozen models: T5 in Flax Linen, its layers and its sizes. No prompt code beyond the one lookup."""
