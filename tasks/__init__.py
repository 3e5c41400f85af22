"""SeqIO tasks, one family a file. `tasks.registry` registers them all; this file imports nothing."""
