"""Text of raw examples as `inputs` and `targets`, and decoded text as what the metrics compare."""
