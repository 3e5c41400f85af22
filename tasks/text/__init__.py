"""Raw examples to `inputs` and `targets`, and decoded text back to what the metrics compare."""
