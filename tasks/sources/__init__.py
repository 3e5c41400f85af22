"""Sources of raw examples: TFDS, official files, text files, or Python."""
