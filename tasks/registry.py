"""Registers every task and mixture: what MIXTURE_OR_TASK_MODULE names."""

from tasks import glue, micro, pairs, pretraining, superglue, texts, winogrande

__all__ = ["glue", "micro", "pairs", "pretraining", "superglue", "texts", "winogrande"]
