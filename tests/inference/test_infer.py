"""Lines that `t5x infer` reads: where they end, what is in front of them, and what is none."""

import pytest

from jax_prompts.errors import ConfigError
from jax_prompts.inference.infer import Request, read_requests


def test_lines_are_read_without_marks_and_line_ends():
    lines = ["\ufeffa film\r\n", "a\u2028b\x0bc\rd\n", "\ufeffe\n", '{"text": "f"}\r\n', "g"]
    assert [request.text for request in read_requests(lines, ["p"])] == [
        "a film",
        "a\u2028b\x0bc\rd",
        "\ufeffe",  # only the first line of a file can have one
        "f",
        "g",
    ]


def test_a_byte_order_mark_does_not_make_json_raw_text():
    assert list(read_requests(['\ufeff{"text": "a film"}\r\n'], ["p"])) == [Request("p", "a film")]


@pytest.mark.parametrize(
    "line", ['{"text": "a", "text": "b"}', '{"text": "a", "prompt": NaN}', '{"text": 1e999}']
)
def test_json_that_says_a_thing_twice_or_nothing_is_refused(line):
    with pytest.raises(ConfigError, match="input line 2 is not"):
        list(read_requests(["first", line], ["p"]))
