"""Registers every task and mixture: what MIXTURE_OR_TASK_MODULE names."""

from tasks import glue, micro, pretraining, superglue

__all__ = ["glue", "micro", "pretraining", "superglue"]
