"""What a run would be: every shape, built abstractly."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax_prompts import optim, partition
from jax_prompts.base_models.build import make_model
from jax_prompts.config import TrainRun
from jax_prompts.data.layout import text_length
from jax_prompts.prompts import for_model, prompt_kind_of
from jax_prompts.state import (
    UNKNOWN_STEPS,
    byte_count,
    check,
    check_model,
    length_of,
    parameter_count,
    sharded_trees,
)


def dry_run(run: TrainRun) -> dict[str, Any]:
    """Every shape of the run, built abstractly: no weights and no data are read.

    Without data the classes of a task are not known, so a BERT's classifier is not counted.

    Raises:
      ConfigError: settings that cannot work.
    """
    # A prompt on BERT comes with a classifier, of classes that only its data know.
    model = make_model(run.model, prompt_kind=prompt_kind_of(run.method), classes=int(run.method is not None))
    run = dataclasses.replace(run, method=for_model(run.method, model.config.prompt_width))
    settings, method = run.training, run.method
    mesh = partition.mesh_of(run.model)
    check(run, mesh)
    check_model(run, model)
    optimizer = optim.make_optimizer(run.optimizer, settings.steps or UNKNOWN_STEPS)
    tuned, frozen = sharded_trees(run, model, mesh)
    tuned.pop("head", None)
    opt_state = partition.state_shapes(optimizer, tuned)
    length = text_length(run.data, length_of(method))
    return {
        "task": run.data.task,
        "method": type(method).__name__ if method else None,
        "tuned_parameters": parameter_count(tuned),
        "frozen_parameters": parameter_count(frozen),
        "tuned_bytes": byte_count(tuned),
        "frozen_bytes": byte_count(frozen),
        "optimizer_bytes": byte_count(opt_state),
        "batch": {
            "members": settings.members,
            "rows": run.data.batch_size,
            "prompt": length_of(method),
            "inputs": length,
            "encoder": length + length_of(method),
            "targets": run.data.task_feature_lengths["targets"],
        },
        "mesh": dict(mesh.shape),
        "bytes_per_device": {
            "tuned": partition.bytes_per_device(tuned),
            "frozen": partition.bytes_per_device(frozen),
            "optimizer": partition.bytes_per_device(opt_state),
        },
        "initial_checkpoint": run.model.checkpoint,
    }
