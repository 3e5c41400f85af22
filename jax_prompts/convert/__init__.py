"""Readers of other systems' checkpoints: each maps T5X parameter paths to arrays read one by one."""
