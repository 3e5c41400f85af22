"""`t5x infer`: answers as they come, kept through a kill; bad lines; outputs that cannot be."""

import contextlib
import fcntl
import io
import json
import os
import pathlib
import resource
import signal
import sys

import numpy as np
import pytest

from jax_prompts.config import BaseModel, Decoding
from jax_prompts.errors import ConfigError, Preempted, RunError, SettingWarning
from jax_prompts.inference import infer
from jax_prompts.inference.engine import Answer, Prompt
from jax_prompts.inference.infer import infer_file
from jax_prompts.runs import InferRun

LINES = [f"line {number}" for number in range(11)]
CHUNK = 4  # lines
LENGTHS = {"inputs": 8, "targets": 2}


class Upper:
    """An engine whose answers are capitals, and which fails where a text says so."""

    fingerprints = {"model_fingerprint": "m", "tokenizer_fingerprint": "t"}

    def __init__(self, base, **sizes):
        self.calls = []

    def load_prompt(self, path):
        return Prompt(np.array([[len(path)]], np.float32), name=path)

    def answers(self, texts, prompts, *, decoding, seed):
        asked.append(len(texts))
        for number, text in reversed(list(enumerate(texts))):
            if text in raised:
                raise raised[text]
            yield Answer(number, text.upper(), len(text) > 20)


asked: list[int] = []
raised: dict[str, BaseException] = {}


@pytest.fixture(autouse=True)
def _engine(monkeypatch, unchecked):
    monkeypatch.setattr(infer, "Engine", Upper)
    monkeypatch.setattr(infer, "CHUNK_BATCHES", 2)
    asked.clear()
    raised.clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("".join(line + "\n" for line in LINES))
    return tmp_path


def run(batch_size=2, prompts=None, source="in", target="out", decoding=None, **options):
    """`infer_file` from one file to another, with one prompt."""
    settings = InferRun(
        BaseModel(None, "asset:micro", None), LENGTHS, batch_size=batch_size, decoding=decoding or Decoding()
    )
    return infer_file(settings, prompts or {"p": "a"}, source, target, **options)


def rows(path="out"):
    return [json.loads(line) for line in pathlib.Path(path).read_bytes().split(b"\n")[:-1]]


def answered(texts, prompt="p"):
    return [{"prompt": prompt, "text": text, "prediction": text.upper()} for text in texts]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_lines_are_answered_in_order_a_chunk_at_a_time(folder):
    report = run()
    assert rows() == answered(LINES)
    assert asked == [4, 4, 3]
    assert {**report, "examples_per_second": 0} == {
        "examples": 11,
        "bad_lines": 0,
        "cut": 0,
        "resumed": 0,
        "examples_per_second": 0,
        "output": "out",
    }
    assert names(folder) == ["in", "out"]


def test_chunks_are_written_when_they_are_answered(folder):
    raised["line 9"] = OSError("broken")
    with pytest.raises(OSError, match="broken"):
        run()
    assert rows("out.partial") == answered(LINES[:8])
    assert names(folder) == ["in", "out.partial", "out.partial.json"]


# Going on


@pytest.fixture
def stopped(folder):
    """What a run that ended in its third chunk has left."""
    raised["line 9"] = MemoryError()
    with pytest.raises(MemoryError):
        run()
    raised.clear()
    asked.clear()
    return folder / "out.partial"


@pytest.mark.parametrize("torn", [0, 1, 30, 200])  # bytes
def test_a_run_goes_on_where_it_stood(stopped, torn, capsys):
    os.truncate(stopped, stopped.stat().st_size - torn)
    report = run(resume=True)
    assert rows() == answered(LINES)
    assert (report["examples"], report["resumed"]) == ((11, 8) if not torn else (11, 4))
    assert sum(asked) == 11 - report["resumed"]
    assert names(stopped.parent) == ["in", "out"]


def test_what_was_not_written_to_its_end_is_done_again(stopped):
    stopped.write_bytes(stopped.read_bytes() + b"\0" * 512)  # as after a power failure
    run(resume=True)
    assert rows() == answered(LINES)


def test_a_run_that_is_all_there_is_finished(stopped):
    content = "".join(json.dumps(row) + "\n" for row in answered(LINES))
    stopped.write_text(content)
    assert run(resume=True)["resumed"] == 11
    assert (stopped.parent / "out").read_text() == content and asked == []


def test_going_on_needs_nothing_to_go_on_from(folder):
    assert run(resume=True)["resumed"] == 0
    with pytest.raises(ConfigError, match="out is finished: leave out --resume"):
        run(resume=True)
    assert rows() == answered(LINES)


def test_answers_are_not_thrown_away(stopped):
    before = stopped.read_bytes()
    with pytest.raises(
        ConfigError, match=r"out\.partial holds answers of a run that ended early: --resume goes"
    ):
        run()
    assert stopped.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 4}, "EVAL_BATCH_SIZE"),
        ({"decoding": Decoding("beam")}, "Decoding"),
        ({"prompts": {"p": "another"}}, "prompt p"),
        ({"prompts": {"q": "a"}}, "prompt p and prompt q"),
    ],
)
def test_another_run_does_not_go_on(stopped, settings, words):
    before = stopped.read_bytes()
    with pytest.raises(ConfigError, match=rf"out\.partial was made with another {words}: give the same"):
        run(resume=True, **settings)
    assert stopped.read_bytes() == before and run(resume=True)["resumed"] == 8


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["line 0", "other", *LINES[2:]], "another input: its line 2 answers something else"),
        (LINES[:8], None),
        (LINES[:4], "holds more than the 4 lines"),
        ([], "holds more than the 0 lines"),
    ],
)
def test_another_input_does_not_go_on(stopped, lines, words):
    before = stopped.read_bytes()
    pathlib.Path("in").write_text("".join(line + "\n" for line in lines))
    if words is None:
        assert run(resume=True)["examples"] == 8
        return
    with pytest.raises(ConfigError, match=words):
        run(resume=True)
    assert stopped.read_bytes() == before


@pytest.mark.parametrize("content", [None, "", "[]", "{", '"a"', "a pipe"])
def test_settings_that_are_lost_are_named(stopped, content):
    settings = stopped.with_name("out.partial.json")
    settings.unlink()
    if content == "a pipe":
        os.mkfifo(settings)
    elif content is not None:
        settings.write_text(content)
    with pytest.raises(
        ConfigError, match=r"out\.partial\.json does not say what .* was made with: remove both"
    ):
        run(resume=True)


def test_two_runs_do_not_write_one_file(folder):
    with open("out.partial", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="out is being written by another run"):
            run()
    run()
    assert rows() == answered(LINES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line(folder, monkeypatch, number):
    before = signal.getsignal(number)
    answers = Upper.answers

    def interrupted(self, texts, *rest, **more):
        if "line 8" in texts:
            os.kill(os.getpid(), number)
        return answers(self, texts, *rest, **more)

    monkeypatch.setattr(Upper, "answers", interrupted)
    with pytest.raises(
        Preempted, match=r"^stopped; what is answered is in .*out\.partial, and --resume goes on"
    ):
        run()
    assert signal.getsignal(number) == before
    monkeypatch.setattr(Upper, "answers", answers)
    assert run(resume=True)["resumed"] == 8
    raised["line 0"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt, match="stopped; no answers are kept"):
        run(target="other")
    assert "other.partial" not in names(folder)


# Outputs that cannot be


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (".", "is a directory"),
        ("nowhere/", "is a directory"),
        ("nowhere/out", "there is no directory .*nowhere; make it"),
        ("in/out", "there is no directory .*in; make it"),
        ("in", "in is the file that --input reads"),
        ("./x/../in", "is the file that --input reads"),
        ("linked", "is the file that --input reads"),
        ("hard", "is the file that --input reads"),
        ("n" * 250, "File name too long"),
    ],
)
def test_an_output_that_cannot_be_is_refused_at_first(folder, monkeypatch, target, words):
    (folder / "x").mkdir()
    (folder / "linked").symlink_to("in")
    (folder / "hard").hardlink_to("in")
    before = names(folder)
    monkeypatch.setattr(infer, "Engine", None)
    with pytest.raises((ConfigError, RunError), match=words) as caught:
        run(target=target)
    assert "\n" not in str(caught.value)
    assert names(folder) == before and (folder / "in").read_text().startswith("line 0\n")


def test_the_partial_file_is_no_input(folder):
    (folder / "out.partial").write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError, match=r"out\.partial is the file that --input reads"):
        run(source="out.partial")


def test_an_output_that_is_there_stays_until_it_is_replaced(folder):
    (folder / "out").write_text("before")
    raised["line 9"] = MemoryError()
    with pytest.raises(MemoryError):
        run()
    assert (folder / "out").read_text() == "before"
    raised.clear()
    run(resume=True)
    assert rows() == answered(LINES)


def test_a_link_goes_on_leading_to_the_answers(folder):
    (folder / "elsewhere").mkdir()
    (folder / "linked").symlink_to("elsewhere/out")
    run(target="linked")
    assert (folder / "linked").is_symlink() and rows("elsewhere/out") == answered(LINES)


def test_a_device_is_written_as_it_is(folder):
    assert run(target="/dev/null")["examples"] == 11
    assert not pathlib.Path("/dev/null").is_file()
    with pytest.raises(ConfigError, match="keeps nothing that --resume could go on from"):
        run(target="/dev/null", resume=True)
    with pytest.raises(RunError, match=r"/dev/full cannot be written: No space left on device$"):
        run(target="/dev/full")


def test_a_full_disk_keeps_what_fits(folder):
    """A limit of file size stands for the disk; the write that passes it is cut there."""
    lines = [f"line {number}" for number in range(99)]
    (folder / "in").write_text("\n".join(lines))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(RunError, match="cannot be written: File too large; what is answered is in"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (folder / "out.partial").stat().st_size == 1000
    assert 8 <= run(resume=True)["resumed"] <= 20
    assert rows() == answered(lines)


def test_an_input_that_cannot_be_read_is_one_line(folder):
    for source in ("nothing", "."):
        with pytest.raises(ConfigError, match=f"--input {source} cannot be read"):
            run(source=source)
    assert names(folder) == ["in"]


# Bad lines


def test_a_bad_line_of_a_file_is_met_before_the_model_is_loaded(folder, monkeypatch):
    (folder / "in").write_bytes("\n".join(LINES).encode() + b"\n\xff\n")
    monkeypatch.setattr(infer, "Engine", None)
    with pytest.raises(
        ConfigError, match=r"input line 12 is not UTF-8 .*; correct it, or .* --skip_bad_lines$"
    ):
        run()
    assert names(folder) == ["in"]


def test_a_bad_line_has_an_error_in_place_of_an_answer(folder, capsys):
    lines = [b"{", *(line.encode() for line in LINES), b"\xff"]
    (folder / "in").write_bytes(b"\n".join(lines) + b"\n")
    report = run(skip_bad_lines=True)
    first, *middle, last = rows()
    assert first["line"] == 1 and first["error"].startswith("is not {")
    assert middle == answered(LINES)
    assert last == {"line": 13, "error": "is not UTF-8 (invalid start byte at byte 1)"}
    assert (report["examples"], report["bad_lines"]) == (11, 2)
    told = capsys.readouterr().err
    assert "input line 1 is not" in told and "input line 13 is not UTF-8" in told


@contextlib.contextmanager
def piped(monkeypatch, content):
    """Stdin as a pipe with this content; stdout as bytes in memory."""
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with open(read, encoding="ascii") as stdin, monkeypatch.context() as streams:
        streams.setattr(sys, "stdin", stdin)
        streams.setattr(sys, "stdout", out)
        yield out.buffer


def test_a_bad_line_of_a_stream_keeps_what_is_answered(folder, monkeypatch):
    bad = b"\n".join([*(line.encode() for line in LINES[:6]), b""])
    words = "line 7 is empty.*; what is answered is in .* --resume goes on"
    with piped(monkeypatch, bad + b"\n"), pytest.raises(ConfigError, match=words):
        run(source="-")
    assert rows("out.partial") == answered(LINES[:4])


def test_bad_lines_stand_when_a_run_goes_on(folder):
    (folder / "in").write_text("\n".join(["", *LINES]) + "\n")
    raised["line 9"] = MemoryError()
    with pytest.raises(MemoryError):
        run(skip_bad_lines=True)
    raised.clear()
    report = run(skip_bad_lines=True, resume=True)
    assert (report["bad_lines"], report["resumed"], report["examples"]) == (1, 8, 11)
    assert rows()[1:] == answered(LINES)


# Streams


def test_streams_are_utf_8_and_end_lines_at_line_feeds_alone(folder, monkeypatch):
    content = '\ufeffé\r\na\u2028b\x0bc\rd\n{"text": "\ufeffe"}'
    with piped(monkeypatch, content.encode()) as out:
        assert run(source="-", target="-")["examples"] == 3
        found = out.getvalue()
    assert [json.loads(line)["text"] for line in found.decode().split("\n")[:-1]] == [
        "é",
        "a\u2028b\x0bc\rd",
        "\ufeffe",
    ]


def test_who_reads_may_go(folder, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stdout, monkeypatch.context() as streams:  # which closes without an error
        streams.setattr(sys, "stdout", stdout)
        with pytest.raises(RunError, match="--output - cannot be written: Broken pipe"):
            run(target="-")


def test_stdin_and_stdout_may_not_be_one_file(folder, monkeypatch):
    with open("in") as stdin, open("in", "a") as stdout, monkeypatch.context() as streams:
        streams.setattr(sys, "stdin", stdin)
        streams.setattr(sys, "stdout", stdout)
        for source, target in (("-", "in"), ("in", "-"), ("-", "-")):
            with pytest.raises(ConfigError, match="is the file that --input reads"):
                run(source=source, target=target)


# What is told


def test_texts_that_are_cut_are_counted_and_marked(folder):
    (folder / "in").write_text("short\n" + "long " * 9 + "\n")
    with pytest.warns(SettingWarning, match="TASK_FEATURE_LENGTHS inputs 8 cuts 1 of 2 texts"):
        report = run()
    assert report["cut"] == 1
    assert [row.get("cut") for row in rows()] == [None, True]
