"""What tasks may import: nothing of jax_prompts, and where no text is made, no TensorFlow."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import tasks

FILES = sorted(pathlib.Path(tasks.__file__).parent.rglob("*.py"))
WITHOUT_TENSORFLOW = (
    "jax_prompts.config",
    "tasks.errors",
    "tasks.metrics.answers",
    "tasks.metrics.correlations",
    "tasks.metrics.generation",
    "tasks.metrics.labels",
    "tasks.selection",
    "tasks.sources.bad_lines",
    "tasks.sources.lines",
    "tasks.text.postprocessors",
)


def imported(file: pathlib.Path) -> set[str]:
    """The top-level packages that a file imports, also inside its functions; "" for a relative import."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("" if node.level else str(node.module).partition(".")[0])
    return found


def test_tasks_import_nothing_of_jax_prompts():
    assert len(FILES) > 30
    assert [file.name for file in FILES if imported(file) & {"jax_prompts", ""}] == []


def test_folders_import_nothing():
    folders = [file for file in FILES if file.name == "__init__.py"]
    assert len(folders) == 7
    assert [str(file) for file in folders if imported(file)] == []


@pytest.mark.parametrize("module", WITHOUT_TENSORFLOW)
def test_scoring_and_settings_import_no_tensorflow(module: str):
    code = f"import sys, {module}; print({{'tensorflow', 'seqio'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
