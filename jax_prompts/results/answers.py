"""Which examples a prompt has right, from its file of predictions, and whether two files are of the same examples."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
from jaxtyping import Bool

from jax_prompts.errors import RunError
from jax_prompts.results.run_files import prediction_rows


@dataclasses.dataclass(frozen=True)
class Marked:
    """Attributes:
    examples: digest of the index, inputs and targets of each, in order.
    right_N: whether each answer is its target, letter by letter.
    """

    examples: str
    right_N: Bool[np.ndarray, " N"]


def mark(file: pathlib.Path, member: int | None, key: str = "prediction") -> Marked:
    """Compares a prompt's answers with their targets.

    Args:
      file: predictions, by one prompt or by several members.
      member: whose; None where the rows name none.
      key: of a row, where the answer is.

    Raises:
      RunError: the file is gone, is damaged, or holds nothing of that member.
    """
    digest, right = hashlib.sha256(), []
    try:
        for row in prediction_rows(file):
            if member is None or row["member"] == member:
                example = [row["index"], row["inputs"], row["targets"]]
                digest.update(json.dumps(example).encode() + b"\n")
                right.append(row[key] == row["targets"])
    except OSError as error:
        raise RunError(f"{file} does not exist") from error
    except KeyError as error:
        raise RunError(f"{file} has a row without {error.args[0]}") from error
    if not right:
        raise RunError(f"{file} holds no answers{'' if member is None else f' of member {member}'}")
    return Marked(digest.hexdigest(), np.array(right))
