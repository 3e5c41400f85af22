"""Errors told in one line."""

import errno

import pytest

from jax_prompts.errors import (
    ConfigError,
    RunError,
    SettingWarning,
    first_line,
    hide_secrets,
    nearest,
    printable,
    system_reason,
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  \n one \ntwo"), "one"),
        (ValueError("\n"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(errno.ENOSPC, "No space left", "file"), f"[Errno {errno.ENOSPC}] No space left: 'file'"),
    ],
)
def test_the_first_line_that_says_something(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ordinary, grün, 日本　語, 🙂, no\u00a0break", "ordinary, grün, 日本　語, 🙂, no\u00a0break"),
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("\x9b31m \x7f \x00", r"\x9b31m \x7f \x00"),
        ("one\r\ntwo\tthree\u2028four", r"one\r\ntwo\tthree\u2028four"),
        ("file\u202egpj.exe", r"file\u202egpj.exe"),
        ("\udc80", r"\udc80"),
    ],
)
def test_a_terminal_does_not_obey_what_is_printable(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left", "file"), "No space left"),
        (OSError("no route\nto it"), "no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_system_says(error, reason):
    assert system_reason(error) == reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:secret@host/a is absent", "https://***@host/a is absent"),
        ("'s3://KEY:se/cret@bucket/a'", "'s3://***@bucket/a'"),
        ("https://ghp_secret@host: use another", "https://***@host: use another"),
        ("https://ann:se@cret@host/model@v1", "https://***@host/model@v1"),
        ("https:/ann:secret@host/a", "https:/***@host/a"),  # a URL that was taken for a path
        ("filecache::https://ann:secret@host", "filecache::https://***@host"),
        (
            "retries exceeded with url: /repos/ann/secret@org/main?t=secret (x",
            "retries exceeded with url: /*** (x",
        ),
        ("hf://ann:secret@host", "hf://***@host"),
        ("gs://b/a?X-Goog-Signature=secret&b=secret: no", "gs://b/a?***: no"),
        ("https://h/a#access_token=secret, and", "https://h/a#***, and"),
        ("https://h/a?secret (why)", "https://h/a?*** (why)"),
        ("1 https://a:secret@h and http://b:secret@i?t=secret", "1 https://***@h and http://***@i?***"),
    ],
)
def test_secrets_of_urls_are_not_shown(text, shown):
    assert "secret" not in hide_secrets(text) == shown
    for kind in (ConfigError, RunError, SettingWarning):
        assert str(kind(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "hf://t5-small@main is absent",
        "hf://google/t5@abc",
        "gs://bucket/a@b/c did you mean gs://x?",
        "http://host:8080/model@v1",
        "mail ann@host",
        "runs/a@b?c=d",
        "is https://host/a there?",
    ],
)
def test_what_is_no_secret_is_shown(text):
    assert hide_secrets(text) == text


def test_names_that_hold_the_name_come_first():
    names = ["super_glue_rte_v102", "glue_rte_v002", "rta", "glue_sst2_v002"]
    assert nearest("rte", names) == "glue_rte_v002 or super_glue_rte_v102"
    assert nearest("RTE", names) == nearest("rte", names)
    assert nearest("glue_sst", names) == "glue_sst2_v002"
