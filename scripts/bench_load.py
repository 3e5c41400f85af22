"""Seconds and peak memory of loading a base model, in every form it may have, beside transformers.

    python scripts/bench_load.py --other=OTHER_VENV/bin/python [--size=t5_1_1_large] [--directory=DIR]

OTHER is a Python with torch and transformers; it writes a random T5 of that size, which is then written in the other
forms. Each measurement is a process of its own, the fastest of three, files in the page cache: `load` is the call that
loads, after all imports; `ready` adds one pass over all numbers, since mapped files are read only then; `peak` is the
process's highest resident memory, mapped pages included, the imports' share of it in brackets.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

REPEATS = 3
THEIRS = ("safetensors", "bin")  # forms that transformers 5 reads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--other", required=True, help="a Python with torch and transformers")
    parser.add_argument("--size", default="t5_1_1_large")
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="with room for two copies of the model"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        root = pathlib.Path(name)
        subprocess.run([args.other, __file__, "transformers", "write", args.size, root], check=True)
        for form in ("safetensors", "bin", "msgpack", "native", "t5x", "orbax"):
            subprocess.run([sys.executable, __file__, "ours", "write", form, root], check=True)
            report = {"form": form, "ours": _best(sys.executable, "ours", args.size, root / form)}
            if form in THEIRS:
                report["transformers"] = _best(args.other, "transformers", args.size, root / form)
            print(json.dumps(report), flush=True)
            if form != "safetensors":
                shutil.rmtree(root / form)


def _best(python: str, who: str, size: str, path: pathlib.Path) -> dict[str, float]:
    command = [python, __file__, who, "load", size, path]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(REPEATS)
    ]
    return {name: round(min(run[name] for run in runs), 2) for name in runs[0]}


def _measured(load, read_all) -> dict[str, float]:
    imports, start = _peak_gb(), time.monotonic()
    weights = load()
    loaded = time.monotonic()
    read_all(weights)
    ready = time.monotonic()
    return {
        "load_s": loaded - start,
        "ready_s": ready - start,
        "peak_gb": _peak_gb(),
        "imports_gb": imports,
    }


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def ours_load(size: str, path: str) -> None:
    from jax_prompts.cpu import restart_with_huge_pages

    restart_with_huge_pages()  # as the command line does
    import jax

    from jax_prompts.base_models.build import make_model
    from jax_prompts.base_models.weights import load_weights
    from jax_prompts.config import BaseModel

    base = BaseModel(size=size, checkpoint=path, vocabulary="")
    model = make_model(base)
    jax.block_until_ready(jax.numpy.zeros(1))  # starts the backend

    def read_all(weights) -> None:
        jax.block_until_ready([array.max() for array in jax.tree.leaves(weights)])

    print(json.dumps(_measured(lambda: jax.block_until_ready(load_weights(base, model)[0]), read_all)))


def ours_write(form: str, root: pathlib.Path) -> None:
    import flax.serialization
    import flax.traverse_util

    from jax_prompts.base_models import hf
    from jax_prompts.base_models.convert import convert_model
    from jax_prompts.base_models.open import open_model
    from jax_prompts.interop.t5x_write import write_checkpoint

    source, target = root / "safetensors", root / form
    if form == "native":
        convert_model(str(source), str(target))
    elif form == "t5x":
        write_checkpoint(target, open_model(str(source)).arrays, 0)
    elif form == "orbax":
        import orbax.checkpoint

        arrays = {name: array[...] for name, array in open_model(str(source)).arrays.items()}
        tree = {"target": flax.traverse_util.unflatten_dict(arrays, sep="/")}
        orbax.checkpoint.PyTreeCheckpointer().save(target.absolute(), tree)
    elif form == "msgpack":
        flat = {}
        for name, array in (hf.open_weights(source) or {}).items():
            stem = name.removesuffix(".weight").replace(".", "/")
            embedding = stem.endswith(("shared", "relative_attention_bias"))
            kind = "embedding" if embedding else "kernel" if len(array.shape) == 2 else "weight"
            flat[f"{stem}/{kind}"] = (array.T if kind == "kernel" else array)[...]
        target.mkdir()
        shutil.copy(source / "config.json", target)
        content = flax.serialization.msgpack_serialize(flax.traverse_util.unflatten_dict(flat, sep="/"))
        (target / "flax_model.msgpack").write_bytes(content)


def transformers_load(_: str, path: str) -> None:
    import torch
    import transformers

    def read_all(model) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.max()

    load = transformers.T5ForConditionalGeneration.from_pretrained
    print(json.dumps(_measured(lambda: load(path, dtype=torch.float32), read_all)))


def transformers_write(size: str, root: pathlib.Path) -> None:
    import torch
    import transformers

    d_model, layers, heads, d_ff = {
        "t5_1_1_small": (512, 8, 6, 1024),
        "t5_1_1_base": (768, 12, 12, 2048),
        "t5_1_1_large": (1024, 24, 16, 2816),
    }[size]
    config = transformers.T5Config(
        vocab_size=32128,
        d_model=d_model,
        d_ff=d_ff,
        num_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    model = transformers.T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(32128, d_model))  # transformers 5 ties it
    model.save_pretrained(root / "safetensors")
    (root / "bin").mkdir()
    shutil.copy(root / "safetensors" / "config.json", root / "bin")
    torch.save(dict(model.state_dict()), root / "bin" / "pytorch_model.bin")


if __name__ == "__main__":
    if sys.argv[1] in ("ours", "transformers"):
        who, what, first, second = sys.argv[1:]
        globals()[f"{who}_{what}"](first, pathlib.Path(second) if what == "write" else second)
    else:
        main()
