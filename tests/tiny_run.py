"""A few steps of a tiny model, with real batches, evaluation and a checkpoint; one process of several as a program.

`python tiny_run.py INDEX COUNT PORT DIRECTORY`: process 0 leaves what `tiny_run` returns in DIRECTORY/found.npz.
"""

import argparse
import functools
import pathlib
import sys

import jax
import numpy as np
from flax.core import meta
from whole_steps import make_train_step

from jax_prompts import optim, partition
from jax_prompts.base_models.weights import random_weights
from jax_prompts.checkpoint import Checkpoints
from jax_prompts.config import Optimizer
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import RaggedTokens
from jax_prompts.data.sampler import eval_batches, train_batches
from jax_prompts.distributed import global_arrays, processes
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import Base, Residual, Uniform, init_members
from jax_prompts.step import dropout_keys

CONFIG = T5Config(64, 16, 2, 1, 1, 8, 32, ("gelu", "linear"), logits_via_embedding=False)
PROMPT = np.arange(64, 67, dtype=np.int32)
ROWS, SEEDS = 8, np.array([0, 1])


class Examples(TokenCache):
    task, split, longest_inputs, longest_targets = "tiny", "train", 6, 2

    def __init__(self):
        pass

    def __len__(self):
        return 37

    @property
    def input_lengths_N(self):
        return np.arange(37) % 5 + 2

    def rows(self, index_B):
        inputs = [[3 + i % 60] * (i % 5 + 1) + [1] for i in map(int, index_B)]
        return RaggedTokens.of(inputs), RaggedTokens.of([4 + int(i) % 50, 1] for i in index_B)


def tiny_run(directory, devices=None):
    """Batches, losses, the tuned table and answers of every evaluated row, of a run on `devices` (on all)."""
    mesh = partition.make_mesh({}, devices)
    training, evaluation = (partition.batch_sharding(mesh, members=members) for members in (True, False))
    model, method = T5(CONFIG), Residual(len(PROMPT), hidden=4)
    optimizer = optim.make_optimizer(Optimizer(name="adamw", learning_rate=0.05), 10)
    everywhere = partition.replicated(mesh)

    @functools.partial(jax.jit, out_shardings=everywhere)
    def begin():
        keys_E = jax.vmap(jax.random.key)(SEEDS)
        tuned = {
            "prompt": init_members(
                method, keys_E, CONFIG.emb_dim, Uniform().table_init(Base(jax.numpy.zeros((1, 1))))
            )
        }
        return meta.unbox(random_weights(model, keys_E[0])), tuned, jax.vmap(optimizer.init)(tuned)

    frozen, tuned, opt_state = begin()
    step = make_train_step(model, method, optimizer, z_loss=0.0, normalization="sum")
    train_step = jax.jit(partition.on(mesh, step), out_shardings=everywhere)
    lengths = {"inputs_length": 8}
    batches = train_batches(
        [[(1.0, Examples())]] * 2,
        seeds=SEEDS.tolist(),
        batch_size=ROWS,
        targets_length=2,
        prompt_ids_TP=PROMPT[None],
        rows_here_K=global_arrays.rows_here(training, ROWS, axis=1),
        **lengths,
    )
    tokens, losses = [], []
    for number in range(5):
        batch = global_arrays.put_batch(next(batches)[0], training, ROWS, axis=1)
        tokens.append(global_arrays.gathered(batch["encoder_input_tokens"]))
        tuned, opt_state, metrics = train_step(tuned, opt_state, frozen, [batch], dropout_keys(SEEDS, number))
        losses.append(global_arrays.gathered(metrics["loss_sum"]))
    checkpoints = Checkpoints(directory / "checkpoints", keep=1)
    checkpoints.save(5, tuned, opt_state, (), {})
    checkpoints.wait()
    found = checkpoints.restore_latest(tuned, opt_state, ())
    checkpoints.close()

    @jax.jit
    def answer(frozen, tuned, batch):
        params = jax.tree.map(lambda x: x[0], tuned["prompt"])
        prompt_PD = method.apply({"params": params}, CONFIG.emb_dim)
        arrays = batch["encoder_input_tokens"], batch["decoder_input_tokens"], prompt_PD
        return model.apply({"params": frozen}, *arrays).argmax(-1)

    answers = []
    mine = global_arrays.rows_here(evaluation, ROWS)
    behind = {"prompt_ids_EP": PROMPT[None], "targets_length": 2, "rows_here_K": mine}
    for batch in eval_batches(Examples(), batch_size=ROWS, **behind, **lengths):
        real_B = batch.pop("index") >= 0
        ids_BU = answer(frozen, tuned, global_arrays.put_batch(batch, evaluation, ROWS))
        answers.append(global_arrays.gathered(ids_BU)[real_B])
    table = jax.tree.leaves(tuned)[0]
    return {
        "tokens": np.stack(tokens),
        "losses": np.stack(losses),
        "table": global_arrays.gathered(table),
        "restored": global_arrays.gathered(jax.tree.leaves(found[1])[0]),
        "answers": np.concatenate(answers),
    }


if __name__ == "__main__":
    index, count, port, directory = sys.argv[1:]
    args = argparse.Namespace(
        command="train",
        coordinator_address=f"127.0.0.1:{port}",
        process_count=int(count),
        process_index=int(index),
        multiprocess_gpu=True,
        initialization_timeout=60,
    )
    with processes.joined(args) as printing:
        found = tiny_run(pathlib.Path(directory))
        if printing:
            np.savez(pathlib.Path(directory) / "found.npz", **found)
