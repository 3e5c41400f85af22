"""Models in Flax Linen: T5 and BERT, their layers and sizes, and prompts where layers read them."""
