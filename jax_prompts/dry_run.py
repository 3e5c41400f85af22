"""Counts a run without running it: every shape, built abstractly."""

from __future__ import annotations

from typing import Any

import jax

from jax_prompts import model_dir, partition
from jax_prompts.base_models.quantize import frozen_count
from jax_prompts.models.answers import inside_model
from jax_prompts.runs import TrainRun
from jax_prompts.setup import set_up
from jax_prompts.task_check import check_task


def dry_run(run: TrainRun) -> dict[str, Any]:
    """Parameters, bytes and lengths of a run, built abstractly: no weights and no data are read.

    Without data the classes of a task are not known, so a BERT's classifier or verbaliser is not counted.

    Raises:
      ConfigError: settings that cannot work.
    """
    model_dir.check_usable(run.model_dir)
    tasks = check_task(run)
    setup = set_up(run, partition.mesh_of(run.model), tasks=tasks)
    tuned = {**setup.tuned, "model": inside_model(setup.tuned.get("model", {}))}
    # Of a verbaliser alone nothing is known.
    opt_state = partition.state_shapes(setup.optimizer, tuned) if jax.tree.leaves(tuned) else {}
    return {
        "task": run.data.task,
        "method": None if run.tunes_model else run.method_name,
        "tuned_parameters": partition.parameter_count(tuned),
        "frozen_parameters": frozen_count(setup.frozen),
        "tuned_bytes": partition.byte_count(tuned),
        "frozen_bytes": partition.byte_count(setup.frozen),
        "frozen_bytes_by_part": partition.bytes_by_part(setup.frozen),
        "optimizer_bytes": partition.byte_count(opt_state),
        "batch": {
            "members": run.training.members,
            "rows": run.data.batch_size,
            "prompt": setup.prompt_length,
            "inputs": setup.inputs_length,
            "encoder": setup.encoder_length,
            "targets": setup.targets_length,
        },
        "mesh": dict(setup.mesh.shape),
        "bytes_per_device": {
            "tuned": partition.bytes_per_device(tuned),
            "frozen": partition.bytes_per_device(setup.frozen),
            "optimizer": partition.bytes_per_device(opt_state),
        },
        "initial_checkpoint": run.model.checkpoint,
    }
