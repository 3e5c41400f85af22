"""What a new command has to bring: one object in the list."""

import json

import pytest

from jax_prompts import main
from jax_prompts.cli import arguments
from jax_prompts.cli.command import Command
from jax_prompts.cli.commands import COMMANDS


def _width(parser):
    parser.add_argument("--width", type=int, default=3)


def _even(args, parser):
    if args.width % 2:
        parser.error(f"--width {args.width} is odd")


DRAW = Command("draw", "draw a line", lambda args: {"line": args.width * "-"}, _width)
FOLD = Command(
    "fold", "fold paper", actions=(Command("once", "in two", lambda args: {"w": args.width}, _width, _even),)
)


@pytest.fixture(autouse=True)
def two_more(monkeypatch):
    monkeypatch.setattr(arguments, "COMMANDS", [*COMMANDS, DRAW, FOLD])


@pytest.mark.parametrize(
    ("argv", "report"),
    [
        (["draw"], {"line": "---"}),
        (["draw", "--width=1"], {"line": "-"}),
        (["fold", "once", "--width=4"], {"w": 4}),
    ],
)
def test_it_runs(argv, report, capsys):
    main.main(argv)
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (report, "")


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["--help"], 0, "draw a line"),
        (["draw", "--help"], 0, "--width WIDTH"),
        (["fold", "--help"], 0, "in two"),
        (["drwa"], 2, "did you mean draw"),
        (["draw", "--widht=3"], 2, "t5x draw: unknown argument --widht=3; did you mean --width"),
        (["draw", "--gin.MODEL_DIR=x"], 2, "t5x draw: --gin.MODEL_DIR=x means nothing here"),
        (["draw", "--gin_file=x.gin"], 2, "unknown argument --gin_file=x.gin"),
        (["draw", "--process_count=2"], 2, "unknown argument --process_count=2"),
        (["fold"], 2, "t5x fold: the following arguments are required: ACTION"),
        (["fold", "once"], 2, "t5x fold once: --width 3 is odd (t5x fold once --help shows the usage)"),
    ],
)
def test_its_flags_are_its_own(argv, status, words, capsys):
    with pytest.raises(SystemExit) as end:
        main.main(argv)
    assert end.value.code == status
    assert words in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--MODEL_DIR=x", "did you mean --gin.MODEL_DIR=x?"),
        ("--model_dir=x", "did you mean --gin.MODEL_DIR=x?"),
        ("--MODEL_DRI", "did you mean --gin.MODEL_DIR?"),
        ("MODEL_DIR=x", "did you mean --gin.MODEL_DIR=x?"),
        ("--Decoding.name=beam", "did you mean --gin.Decoding.name=beam?"),
        ("--skip_bad_line", "did you mean --skip_bad_lines?"),
        ("--gin_files=a.gin", "did you mean --gin_file"),
        ("a.gin", "did you mean --gin_file=a.gin?"),
        ("--MODEL_DIR=https://ann:secret@host", "did you mean --gin.MODEL_DIR=https://***@host?"),
    ],
)
def test_a_setting_without_its_gin_is_recognised(argument, words, capsys):
    with pytest.raises(SystemExit) as end:
        main.main(["train", argument])
    assert end.value.code == 2
    assert words in capsys.readouterr().err
