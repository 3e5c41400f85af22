"""The help of macros, and what it must not do: import anything heavy, or miss a macro."""

import pathlib
import re
import subprocess
import sys

import pytest

from jax_prompts import config, runs
from jax_prompts.cli import macros
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    return {macro.name: macro for macro in macros.read_macros()}


def test_every_macro_that_gin_knows_has_help(found):
    gin = pytest.importorskip("gin")
    resolve(parse(["train", "--gin_file=gin_configs/quickstart.gin"]), "TrainRun")
    defined = {scope for (scope, selector) in gin.config._CONFIG if selector == "gin.macro"}
    assert defined == set(found)
    assert [name for name, macro in found.items() if not macro.meaning] == []


def test_a_macro_has_its_default_section_and_fields(found):
    assert found["BATCH_SIZE"] == macros.Macro(
        "BATCH_SIZE", "The data", "32", "rows a step, for each member", ("Data.batch_size",)
    )
    assert found["MODEL_DIR"].default is None
    assert found["MODEL_DIR"].fields == ("EvalRun.output_dir", "TrainRun.model_dir", "Suite.model_dir")
    assert found["PARTITIONS"].default == "{'data': -1}"


def test_fields_are_fields_of_the_classes(found):
    for macro in found.values():
        for field in macro.fields:
            name, _, part = field.partition(".")
            made = getattr(runs, name, None) or getattr(config, name)
            assert part in made.__dataclass_fields__, field


def test_help_shows_every_macro_within_the_width_of_a_terminal(found):
    lines = macros.help_text().splitlines()
    shown = [match[1] for line in lines if (match := re.match(r"  ([A-Z_]+) (?:=|has no default)", line))]
    assert shown == list(found)
    assert max(map(len, lines)) <= 100
    assert "  TRAIN_STEPS has no default" in lines and "  EVAL_PERIOD = 1000" in lines


def test_help_needs_neither_gin_nor_jax():
    program = (
        "import sys\n"
        "from jax_prompts.cli.macros import help_text\n"
        "assert help_text()\n"
        "assert not {'gin', 'jax', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
