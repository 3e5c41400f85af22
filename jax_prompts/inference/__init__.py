"""Answering texts with a model and its prompts: from Python, and line by line."""
