"""Texts answered by a model with its prompts: in Python, and line by line."""
