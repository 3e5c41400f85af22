"""Pictures of runs, suites, prompts and studies: one page, single figures, a notebook's views."""
