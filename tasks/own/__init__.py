"""Tasks made of the user's own files, by settings alone."""
