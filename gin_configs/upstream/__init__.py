"""A package, since gin inside T5X looks for files of this folder by asking Python where it lies."""
