"""Prompts of other systems: PEFT, NumPy, T5X; in and out."""
