"""Training steps added up as traced: products, and what is kept for the backward pass."""

import jax
import jax.numpy as jnp
import pytest

from jax_prompts import partition
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.precompile.accounting import account, kept_bytes, matrix_flops
from jax_prompts.setup import set_up

QUICK = ("--gin_file=gin_configs/quickstart.gin", "--gin.MODEL_DIR=never", "--gin.SCAN_LAYERS=True")


def test_products_within_loops_branches_and_calls():
    def function(x):
        x = jax.jit(lambda x: x @ x)(x)
        x = jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, x)
        return jax.lax.scan(lambda x, _: (jax.checkpoint(lambda x: x @ x)(x), None), x, length=5)[0]

    assert matrix_flops(jax.make_jaxpr(function)(jnp.ones((4, 4))).jaxpr) == 7 * 2 * 4**3


def test_kept_is_what_the_backward_pass_needs_beside_arguments():
    """Of a sine the cosine; of products with weights nothing but the weights; of weights laid out anew a copy."""

    def loss(tuned_BD, kernel_DD, again_DD):
        return jnp.sum(jnp.sin(tuned_BD @ kernel_DD) @ again_DD)

    B, D = 3, 8
    arrays = jnp.ones((B, D)), jnp.ones((D, D)), jnp.ones((D, D))
    assert kept_bytes(loss, *arrays) == B * D * 4
    assert kept_bytes(lambda t, k, a: loss(t, k, 2 * a), *arrays) == (B * D + D * D) * 4


def account_of(*flags):
    run = resolve(parse(["train", *QUICK, *flags]), "TrainRun")[0]
    return account(set_up(run, partition.mesh_of(run.model, jax.devices()[:1])))


@pytest.mark.slow
def test_rows_cost_alike_and_weights_once():
    """Whatever two batch sizes are compared; the model's weights are no part of a row."""

    eight, twelve = (account_of(f"--gin.BATCH_SIZE={rows}") for rows in (8, 12))
    assert eight.weights == twelve.weights == 4 * 4_082_688
    assert eight.kept == twelve.kept >= 0
    assert eight.kept_a_row == twelve.kept_a_row > 0
    assert 1.49 < twelve.flops / eight.flops <= 1.5


def test_prompts_at_every_layer_are_accounted_for():
    at_input = account_of("--gin_file=gin_configs/prompts/prompt_tuning.gin", "--gin.PROMPT_LENGTH=4")
    prefix = account_of("--gin_file=gin_configs/prompts/prefix.gin", "--gin.PROMPT_LENGTH=4")
    assert prefix.weights == at_input.weights
    assert prefix.flops > 0.9 * at_input.flops
