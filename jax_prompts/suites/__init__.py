"""Tables of runs: a suite expands to cells, workers run them, a table shows them beside published numbers."""
