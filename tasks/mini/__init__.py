"""Tasks of the embedded `micro` model and of the quickstart, with the text that they generate."""
