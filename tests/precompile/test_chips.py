"""Names of TPU slices: which are asked for, what is said of others."""

import dataclasses
import itertools
import subprocess
import sys

import pytest

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.main import main
from jax_prompts.precompile.chips import USUAL, check_topology, open_lines

NO_SLICE = " is no TPU slice, VERSION:AxB or VERSION:AxBxC; "


@pytest.mark.parametrize("topology", [
    *USUAL, "v4:4x4x12", "v4:2x2x8", "v5p:16x16x16", "v5p:4x4x16", "v5e:1x4", "v5e:2x8", "v6e:4x16",
])  # fmt: skip
def test_any_sides_of_a_version_may_be_asked_for(topology):
    check_topology(topology)


@pytest.mark.parametrize(("topology", "message"), [
    ("v5e:4x4x4", NO_SLICE + "did you mean v5p:4x4x4 or v5e:4x4"),
    ("v4:4x4", NO_SLICE + "did you mean v4:4x4x"),
    ("v5e:0x4", NO_SLICE + "did you mean v5e:4x4"),
    ("v5e:32x32", NO_SLICE + "did you mean v5e:"),
    ("v5e:4X4", NO_SLICE + "did you mean v5e:4x4"),
    ("nonsense", NO_SLICE + "VERSION is v4, v5p, v5e, v6e, tpu7x"),
    ("", NO_SLICE + "VERSION is v4"),
    ("v5litepod-16", NO_SLICE + "did you mean v5e:4x4?"),
    ("v5e-16", NO_SLICE + "did you mean v5e:4x4?"),
    ("v4-32", NO_SLICE + "did you mean v4:2x2x4?"),
    ("v5p-8", NO_SLICE + "did you mean v5p:2x2x1?"),
    ("v6e-12", NO_SLICE + "v6e has no usual slice of 12 chips"),
    ("gpu:8", " is no TPU slice: leave --topology out, on the machine that has it"),
    ("cpu", " is no TPU slice: leave --topology out"),
    ("h200", " is no TPU slice: leave --topology out"),
])  # fmt: skip
def test_what_is_no_slice_is_answered_with_what_may_be_meant(topology, message):
    with pytest.raises(ConfigError) as error:
        check_topology(topology)
    said = str(error.value)
    assert said.startswith(f"--topology={topology}{message}")
    assert len(said) < 160 and "\n" not in said


def test_a_wrong_name_ends_the_command_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["precompile", "--gin_file=gin_configs/quickstart.gin", "--topology=v5e:banana"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert line.startswith("t5x precompile: --topology=v5e:banana is no TPU slice")


def test_a_library_that_is_not_there_is_one_line(monkeypatch):
    """In a process of its own: JAX, which warns of it in two lines, must not be imported before."""
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/nowhere/libtpu.so")
    with pytest.raises(RunError, match=r"TPU_LIBRARY_PATH=/nowhere/libtpu.so is no file"):
        check_topology("v5e:4x4")
    command = [sys.executable, "-m", "jax_prompts.main", "precompile", "--topology=v5e:4x4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@dataclasses.dataclass(frozen=True)
class Device:
    coords: tuple[int, int, int]
    device_kind: str


@pytest.mark.parametrize(("kind", "sides", "group", "line"), [
    ("TPU v5 lite", (4, 4, 1), (4, 1, 1), True),
    ("TPU v5 lite", (4, 4, 1), (2, 1, 1), True),  # one link, where a ring has two
    ("TPU v5 lite", (4, 4, 1), (2, 2, 1), False),
    ("TPU v5 lite", (4, 4, 1), (4, 4, 1), False),
    ("TPU v5 lite", (16, 16, 1), (16, 1, 1), False),
    ("TPU v5 lite", (16, 16, 1), (1, 8, 1), True),
    ("TPU v6 lite", (8, 16, 1), (8, 1, 1), True),
    ("TPU v4", (2, 2, 4), (1, 1, 4), True),
    ("TPU v4", (2, 2, 4), (2, 2, 1), False),
    ("TPU v4", (4, 4, 4), (1, 1, 4), False),
    ("TPU v4", (4, 4, 4), (1, 2, 1), True),
    ("TPU v5", (4, 4, 12), (1, 1, 12), False),
    ("TPU v5", (4, 4, 2), (4, 1, 1), True),
    ("cpu", (4, 4, 1), (4, 1, 1), False),
])  # fmt: skip
def test_groups_that_no_link_closes(kind, sides, group, line):
    places = list(itertools.product(*map(range, sides)))
    members = [places.index(place) for place in itertools.product(*map(range, group))]
    assert open_lines([Device(place, kind) for place in places])(members) is line
