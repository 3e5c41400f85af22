"""Runs of upstream T5X as programs, tiny."""

import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def command(peers, program, files, **macros):
    """`python -m t5x.PROGRAM` with gin files, by name here or below the project, and macros, strings among them."""
    found = [HERE / file if (HERE / file).exists() else file for file in files]
    return [
        str(peers / "venv" / "bin" / "python"),
        *("-m", f"t5x.{program}", f"--gin_search_paths={ROOT},{HERE}"),
        *(f"--gin_file={file}" for file in found),
        *(f"--gin.{name.replace('__', '.')}={value!r}" for name, value in macros.items()),
    ]


def environment(devices=1):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    own = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": f"{ROOT}:{HERE}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return {**os.environ, **own}


def run(peers, program, files, devices=1, **macros):
    """Lets it run to its end, and returns what it wrote to its standard error; it must have gone well."""
    done = start(peers, program, files, devices, **macros)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def refusal(peers, program, files, **macros):
    """The line of a program's standard error that names the error it ended with."""
    done = start(peers, program, files, **macros)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("jax_prompts.errors.")]
    return lines[-1]


def start(peers, program, files, devices=1, **macros):
    return subprocess.run(
        command(peers, program, files, **macros),
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=600,
    )
