"""Prompt files and runs by hand, for tests of studies."""

import json

import numpy as np

from jax_prompts.prompts import PromptMetadata, save_prompt


def prompt_file(path, prompt_PD, **metadata):
    """Writes a prompt file; its path as a user types it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_prompt(path, np.asarray(prompt_PD, np.float32), PromptMetadata(**metadata))
    return str(path)


def run_directory(directory, *, settings="", summary=None, prompt_PD=None, **metrics):
    """Writes what a run leaves: its configuration, metrics by name and lines, a prompt, and a summary if it ended."""
    (directory / "metrics").mkdir(parents=True)
    (directory / "config.gin").write_text(settings)
    for name, lines in metrics.items():
        text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        (directory / "metrics" / f"{name}.jsonl").write_text(text)
    if summary is not None:
        (directory / "summary.json").write_text(json.dumps(summary))
    if prompt_PD is not None:
        prompt_file(directory / "prompt.safetensors", prompt_PD)
    return str(directory)
