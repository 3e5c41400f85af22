"""How numbers lie in files: each format gives arrays that are read when they are wanted."""
