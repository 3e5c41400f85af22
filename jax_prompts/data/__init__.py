"""From SeqIO task to batch: token cache, deterministic sampler, layout with virtual tokens."""
