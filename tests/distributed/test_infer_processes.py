"""`t5x infer` over a split in two processes, each with its shards or together, the same answers, killed or not."""

import time

import pytest
from several import finish, start

from jax_prompts.prompts import PromptMetadata, save_prompt

pytestmark = pytest.mark.slow
TASK = "quickstart_reviews"
FILES = ("--gin_file=gin_configs/runs/infer.gin",)


@pytest.fixture(scope="module")
def infer(tmp_path_factory, compile_cache):
    """`infer(count, output, num_shards)` starts processes that answer 64 reviews."""
    import numpy as np

    folder = tmp_path_factory.mktemp("infer")
    rows = 3 * np.random.default_rng(0).normal(size=(3, 192)).astype(np.float32)
    save_prompt(folder / "prompt.safetensors", rows, PromptMetadata(task=TASK))

    def begin(count, output, num_shards):
        settings = {
            "SCAN_LAYERS": True,
            "EVAL_SPLIT": "validation[:64]",
            "EVAL_BATCH_SIZE": 4,
            "CACHE_DIR": folder / "caches",
            "PROMPT_FILE": folder / "prompt.safetensors",
            "INFER_OUTPUT_DIR": folder / output,
            "infer.num_shards": num_shards,
            "infer.checkpoint_period": 1,
        }
        cache = {name: value for name, value in compile_cache.items() if name != "XLA_FLAGS"}
        return start(count, *FILES, command="infer", env=[cache] * count, **settings)

    return folder, begin


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*.jsonl-*"))}


def test_each_process_makes_its_shards_or_all_make_one_together(infer):
    folder, begin = infer
    for count in (4, 1):
        running = begin(2, f"of{count}", count)
        outputs = [process.communicate(timeout=600) for process in running]
        assert [process.returncode for process in running] == [0, 0], outputs
        assert (outputs[1][0], outputs[0][0].count('"shards": ')) == ("", 1)
        assert not list((folder / f"of{count}").glob("tmp-*"))
    (together, _) = shards(folder / "of1").values()
    rows = [content.splitlines() for name, content in shards(folder / "of4").items() if content]
    assert together.splitlines() == [row for several in zip(*rows, strict=True) for row in several]


def test_killed_at_any_moment_they_go_on(infer):
    folder, begin = infer
    target, deadline = folder / "killed", time.monotonic() + 300
    running = begin(2, "killed", 4)
    while time.monotonic() < deadline and len([*target.rglob("*")]) < 9:
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    for process in running:
        process.kill()
    for process in running:
        process.communicate()
    assert shards(target) != shards(folder / "of4")
    statuses, lasts, _ = finish(begin(2, "killed", 4))
    assert statuses == [0, 0], lasts
    assert shards(target) == shards(folder / "of4")
