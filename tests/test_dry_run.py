"""The papers' parameter counts, from the gin files that users give."""

import pytest

from jax_prompts.arguments import parse
from jax_prompts.dry_run import dry_run
from jax_prompts.main import resolve

FROZEN = {"t5_small": 60_506_624, "t5_base": 222_903_552, "t5_large": 737_668_096}
TUNED = {  # by prompt and recipe: small, base, large
    ("prompt_tuning", "lester2021"): (51_200, 76_800, 102_400),
    ("residual", "residual2023"): (416_656, 624_784, 832_912),
    ("mlp", "residual2023"): (416_656, 624_784, 832_912),
    ("decomposed", "decomposed2023"): (6_120, 8_680, 11_240),
    ("p_tuning_mlp", "explosive"): (793_088, 1_779_456, 3_159_040),
    ("explosive", "explosive"): (1_536, 2_304, 3_072),
    ("explosive_star", "explosive"): (1_536, 2_304, 3_072),
}


@pytest.mark.parametrize(("prompt", "recipe"), TUNED)
def test_parameter_counts_of_the_papers(prompt, recipe):
    for (size, frozen), tuned in zip(FROZEN.items(), TUNED[prompt, recipe], strict=True):
        files = f"models/{size} prompts/{prompt} recipes/{recipe} runs/train".split()
        flags = [f"--gin_file=gin_configs/{file}.gin" for file in files]
        task = [
            "--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102",
            "--gin.MODEL_DIR=never",
            "--gin.BATCH_SIZE=16",
        ]
        report = dry_run(resolve(parse(["train", *flags, *task]), "TrainRun")[0])
        assert (report["tuned_parameters"], report["frozen_parameters"]) == (tuned, frozen)
