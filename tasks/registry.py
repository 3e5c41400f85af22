"""Registers every task and mixture: import this module (MIXTURE_OR_TASK_MODULE) and SeqIO knows their names."""

from tasks import glue, micro, pretraining, superglue

__all__ = ["glue", "micro", "pretraining", "superglue"]
