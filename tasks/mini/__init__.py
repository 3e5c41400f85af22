"""Pre-training tasks of the embedded `mini` model."""
