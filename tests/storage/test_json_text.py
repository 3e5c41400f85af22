"""What commands print and runs keep is JSON, whatever the numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_prompts.storage import json_text

ROWS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(ROWS, st.booleans())
def test_numbers_that_are_not_finite_are_null(value, ascii):
    text = json_text.dumps(value, ensure_ascii=ascii)
    read = json.loads(text, parse_constant=lambda name: 1 / 0)
    # Python's own dialect, its three words read as null.
    assert read == json.loads(json.dumps(value), parse_constant=lambda name: None)


def test_a_report_hides_the_secrets_of_urls():
    row = {"store": "s3://key:sécret@b", "prompts": [{"path": "https://h/a?sig=sécret"}], "n": 3}
    assert json.loads(json_text.report(row)) == {
        "store": "s3://***@b",
        "prompts": [{"path": "https://h/a?***"}],
        "n": 3,
    }


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '[{"b": 1, "b": 1}]', "[NaN]", '{"a": -Infinity}', "1e999"]
)
def test_what_says_a_thing_twice_or_nothing_is_no_json(text):
    json.loads(text)
    with pytest.raises(ValueError, match=r"twice|no finite number"):
        json_text.loads(text)


def test_all_else_is_read_as_python_reads_it():
    text = '{"a": [1, 2.5, -0.0, 1e3, null, true, {"a": "\\u20ac"}]}'
    assert json_text.loads(text) == json.loads(text)
