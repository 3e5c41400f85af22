"""Numbers about prompts and runs: the analyses of the four papers, by name."""
