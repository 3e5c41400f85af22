"""File formats of arrays, which are read when they are wanted."""
