"""Registers every task and mixture: what MIXTURE_OR_TASK_MODULE names."""

from tasks import (
    glue,
    micro,
    mini,
    mixtures,
    pairs,
    pretraining,
    qa,
    residual,
    superglue,
    texts,
    winogrande,
    wsc,
)

__all__ = [
    "glue",
    "micro",
    "mini",
    "mixtures",
    "pairs",
    "pretraining",
    "qa",
    "residual",
    "superglue",
    "texts",
    "winogrande",
    "wsc",
]
