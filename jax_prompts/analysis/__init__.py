"""Numbers about prompts."""
