"""The project's prompts inside upstream T5X (`python -m t5x.train`), by gin alone: docs/upstream_t5x.md."""
