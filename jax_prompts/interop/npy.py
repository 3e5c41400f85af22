"""Prompts as NumPy arrays: float32 [P, D], the layout of the original prompt tuning code's released prompts."""

from __future__ import annotations

import io
import pathlib
import tokenize

import numpy as np
from jaxtyping import Float

from jax_prompts.errors import RunError, first_line, system_reason
from jax_prompts.interop.imported import ImportedPrompt, as_prompt, check_file
from jax_prompts.prompts import PromptMetadata
from jax_prompts.storage import files

MAGIC = b"\x93NUMPY"


def is_array(path: pathlib.Path) -> bool:
    """Whether this is a file in NumPy's format; the original code writes some without `.npy`.

    Raises:
      RunError: it cannot be read.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise RunError(f"{path} cannot be read: {system_reason(error)}") from error


def read_array(path: pathlib.Path) -> ImportedPrompt:
    """The prompt of an `.npy` file.

    Raises:
      ConfigError: no such file.
      RunError: a damaged file, one that holds Python objects, or no [P, D] of finite floats.
    """
    check_file(path)
    try:
        # Mapped, so that a header cannot ask for more memory than the file has bytes.
        array = np.lib.format.open_memmap(path, mode="r")
    except (
        ValueError,
        TypeError,
        OSError,
        OverflowError,
        EOFError,
        RecursionError,
        tokenize.TokenError,
    ) as error:
        reason = first_line(error)
        raise RunError(f"{path} is no whole array of numbers ({reason}): use another file") from error
    prompt_PD = as_prompt(path, array)
    return ImportedPrompt(
        prompt_PD, PromptMetadata(method="PromptTuning", settings={"length": len(prompt_PD)})
    )


def write_array(path: files.PathOrUrl, prompt_PD: Float[np.ndarray, "P D"]) -> None:
    """Writes an `.npy` file, whole or not at all.

    Raises:
      RunError: it cannot be written.
    """
    content = io.BytesIO()
    np.save(content, np.asarray(prompt_PD, dtype="<f4"), allow_pickle=False)
    with files.write_errors(path):
        files.write(path, content.getvalue())
