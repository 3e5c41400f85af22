"""The original prompt tuning on T5X, driven by `peer.py`: needs t5x, flaxformer and prompt_tuning in their environment.

The sources' folders are found beside the packages, and hold the gin files.
"""

import json
import pathlib
import sys

import gin
import jax
import numpy as np
import prompt_tuning
import t5x
from prompt_tuning.train import partitioning as prompt_partitioning
from t5x import gin_utils, partitioning, trainer, utils
from worker import serve


def source(package):
    return str(pathlib.Path(package.__path__[0]).parent)


def make(size, prompt, dtype, dropout, vocabulary, **_):
    gin_utils.parse_gin_flags(
        [source(t5x), source(prompt_tuning), str(pathlib.Path(source(t5x)).parent / "flaxformer")],
        [f"prompt_tuning/configs/models/{size}_prompt.gin"],
        [
            f"PROMPT_LENGTH={prompt}",
            f'ACTIVATION_DTYPE="{dtype}"',
            f"DROPOUT_RATE={dropout}",
            f'seqio.SentencePieceVocabulary.sentencepiece_model_file="{vocabulary}"',
        ],
    )
    with gin.unlock_config():

        @gin.configurable
        def chosen(model=gin.REQUIRED):
            return model

        gin.parse_config("chosen.model = %MODEL")
    return chosen()


def main():
    settings = json.loads(sys.argv[1])
    model = make(**settings)
    batch, inputs, targets = (settings[name] for name in ("batch", "inputs", "targets"))
    decoder = ("decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights")
    shapes = {"encoder_input_tokens": (batch, inputs), **dict.fromkeys(decoder, (batch, targets))}
    rules = partitioning.standard_logical_axis_rules(
        additional_rules=prompt_partitioning.standard_logical_axis_rules()
    )
    partitioner = partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=rules)
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes=shapes,
        input_types=dict.fromkeys(shapes, np.int32),
        partitioner=partitioner,
    )
    training = trainer.Trainer(
        model,
        initializer.from_scratch(jax.random.PRNGKey(0)),
        partitioner,
        eval_names=[],
        summary_dir=None,
        train_state_axes=initializer.train_state_axes,
        rng=jax.random.PRNGKey(1),
        learning_rate_fn=utils.create_learning_rate_scheduler(factors="constant", base_learning_rate=0.3),
        num_microbatches=None,
    )
    compiled = False

    def step(texts, targets):
        nonlocal compiled
        texts, targets = np.array(texts, np.int32), np.array(targets, np.int32)
        arrays = {
            "encoder_input_tokens": texts,
            "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
            "decoder_target_tokens": targets,
            "decoder_loss_weights": np.ones_like(targets),
        }
        if not compiled:
            training.compile_train(arrays)
            compiled = True
        training.train_state, _ = training._partitioned_train_step(training.train_state, arrays)
        jax.block_until_ready(jax.tree.leaves(training.train_state.params))
        return {}

    serve(step=step)


main()
