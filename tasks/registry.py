"""Registers every task and mixture: what MIXTURE_OR_TASK_MODULE names."""

from tasks import glue, mixtures, pairs, pretraining, qa, residual, single_texts, superglue, winogrande, wsc
from tasks.micro import micro_tasks
from tasks.mini import mini_tasks

__all__ = [
    "glue",
    "micro_tasks",
    "mini_tasks",
    "mixtures",
    "pairs",
    "pretraining",
    "qa",
    "residual",
    "single_texts",
    "superglue",
    "winogrande",
    "wsc",
]
