"""Registers every task and mixture: what MIXTURE_OR_TASK_MODULE names."""

from tasks import glue, micro, mixtures, pretraining, qa, residual, superglue, wsc

__all__ = ["glue", "micro", "mixtures", "pretraining", "qa", "residual", "superglue", "wsc"]
