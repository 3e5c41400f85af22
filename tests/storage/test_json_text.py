"""What commands print and runs keep is JSON, whatever the numbers."""

import json

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
