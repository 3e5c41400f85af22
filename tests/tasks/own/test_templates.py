"""A template is read as `str.format` reads it, with columns alone in its braces."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import TaskError
from tasks.own.templates import Template

COLUMN = st.text(string.ascii_letters + string.digits + "_ -", min_size=1)


@given(st.lists(st.tuples(st.text(), COLUMN), min_size=1, max_size=4), st.text(), st.data())
def test_columns_are_filled_in_and_nothing_else_is_touched(parts, end, data):
    escaped = [(text.replace("{", "{{").replace("}", "}}"), column) for text, column in parts]
    written = "".join(f"{text}{{{column}}}" for text, column in escaped) + end.replace("{", "{{").replace(
        "}", "}}"
    )
    template = Template(written, "OwnTask.inputs")
    row = {column: data.draw(st.text()) for _, column in parts}
    assert template.columns == [column for _, column in parts]
    assert template.fill(row) == "".join(text + row[column] for text, column in parts) + end


@given(st.text("ab{}:!.[]0", max_size=8))
def test_a_text_is_refused_with_its_setting_or_filled(text):
    try:
        template = Template(text, "OwnTask.inputs")
    except TaskError as error:
        assert str(error).startswith(f"OwnTask.inputs {text!r}")
    else:
        assert template.columns and isinstance(template.fill(dict.fromkeys(template.columns, "")), str)


@pytest.mark.parametrize("text", ["", "no column", "{}", "{a:>3}", "{a!r}", "{a", "a}"])
def test_what_is_no_template_is_refused(text):
    with pytest.raises(TaskError, match=r"write it like 'review: \{text\}'"):
        Template(text, "OwnTask.inputs")
