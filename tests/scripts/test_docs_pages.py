"""What the site's tables hold: every field of settings with its meaning, default and macro."""

import dataclasses
import inspect
import pathlib

import pytest

from jax_prompts import config, runs
from jax_prompts.cli.macros import read_macros

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_pages

    return docs_pages


def settings():
    found = {
        *inspect.getmembers(config, dataclasses.is_dataclass),
        *inspect.getmembers(runs, dataclasses.is_dataclass),
    }
    return [made for _, made in sorted(found)]


@pytest.mark.parametrize("made", settings(), ids=lambda made: made.__name__)
def test_every_field_is_documented(pages, made):
    assert set(pages.field_meanings(made)) == {field.name for field in dataclasses.fields(made)}


def test_the_page_has_every_class(pages):
    assert set(pages.CLASSES) == set(settings())
    text = pages.fields()
    small = "<small>type `int`, macro `BATCH_SIZE`</small>"
    assert f"| `batch_size`<br>required | rows a step, for each member.<br>{small} |" in text
    assert "| `decoding`<br>`Decoding()` |" in text


def test_a_page_gets_what_it_names(pages):
    page = pages.completed("before\n\n{{ macros }}\n\nin a line {{ macros }}\n")
    assert page.startswith("before\n\n### The run\n") and "in a line {{ macros }}" in page
    assert all(f"| `{macro.name}`<br>" in page for macro in read_macros())


def test_links_of_contributing_are_those_of_the_site(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "CONTRIBUTING.md").write_text("see [scaling](docs/scaling.md#how-to-read-it)")
    assert pages.contributing() == "see [scaling](scaling.md#how-to-read-it)"


def test_pages_are_written_whole_and_anew(pages, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "old.md").write_text("no page any more")
    pages.write_pages(tmp_path / "docs")
    written = {page.name: page.read_text() for page in (tmp_path / "docs").glob("*.md")}
    assert set(written) == {page.name for page in (ROOT / "docs").glob("*.md")}
    assert "### Optimizer" in written["configuration.md"] and "{{" not in written["contributing.md"]
