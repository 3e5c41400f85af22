"""Shards beside those that T5X's own writer makes of the same task: `T5X_PEERS` names a folder with T5X in `venv`."""

import json
import os
import pathlib
import subprocess

import pytest

from jax_prompts.main import main

pytestmark = pytest.mark.slow
TESTS = pathlib.Path(__file__).parents[1]
PROGRAM = """
import sys
import numpy as np
import seqio
import users_tasks
from t5x import infer

task = seqio.get_mixture_or_task("users_lambda")
vocabulary = task.output_features["targets"].vocabulary
for shard in range(2):
    lengths, info = {"inputs": 48, "targets": 8}, seqio.ShardInfo(shard, 2)
    examples = task.get_dataset(lengths, "validation", shuffle=False, num_epochs=1, shard_info=info)
    count = len(list(examples))
    said = {"predict": [np.array(vocabulary.encode("good"))] * count, "score": [np.float32(-1.5)] * count}
    for mode, values in said.items():
        path = f"{sys.argv[1]}/users_lambda-{mode}.jsonl-{shard:05}-of-00002"
        infer.write_inferences_to_file(path, (values, {}), examples, mode, vocabulary)
"""


def test_files_lines_and_keys_are_t5xs(tmp_path, compiled_once):
    peers = os.environ.get("T5X_PEERS")
    if peers is None:
        pytest.skip("T5X is not installed; T5X_PEERS names the folder where it is")
    (tmp_path / "theirs").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "JAX_PLATFORMS": "cpu"}
    command = [f"{peers}/venv/bin/python", "-c", PROGRAM, str(tmp_path / "theirs")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    for mode in ("predict", "score"):
        settings = {
            "MIXTURE_OR_TASK_NAME": "users_lambda",
            "MIXTURE_OR_TASK_MODULE": "users_tasks",
            "CACHE_DIR": tmp_path / "caches",
            "EVAL_BATCH_SIZE": 8,
            "SCAN_LAYERS": True,
            "INFER_OUTPUT_DIR": tmp_path / "ours",
            "infer.mode": mode,
            "infer.num_shards": 2,
        }
        bindings = [f"--gin.{name}={value}" for name, value in settings.items()]
        main(["infer", "--gin_file=gin_configs/quickstart_infer.gin", *bindings])
    theirs = sorted((tmp_path / "theirs").iterdir())
    assert len(theirs) == 4
    for file in theirs:
        rows = [
            list(map(json.loads, path.read_text().splitlines()))
            for path in (file, tmp_path / "ours" / file.name)
        ]
        assert [row["inputs"] for row in rows[0]] == [row["inputs"] for row in rows[1]]
        assert [list(row) for row in rows[0]] == [list(row) for row in rows[1]]
