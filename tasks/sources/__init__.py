"""Where raw examples come from: TFDS, official files, text files, or Python."""
