"""README and docs/: links lead somewhere, commands can be typed as they stand, messages are those of the code."""

import ast
import pathlib
import re
import shlex
import subprocess

import pytest

from jax_prompts.cli import t5x_words
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.commands import COMMANDS
from jax_prompts.cli.macros import read_macros
from jax_prompts.prompts import INITIALIZERS, METHODS
from jax_prompts.tuned import KINDS

ROOT = pathlib.Path(__file__).parents[1]
PAGES_OF_THE_SITE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *PAGES_OF_THE_SITE]
ENVIRONMENT = "source .venv/bin/activate"
HEADING = re.compile(r"#{1,6} (.+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:.*\| *)?(?:\.venv/bin/)?t5x (.*)")


def named(path):
    return str(path.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=named)


def prose(page):
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def commands(page):
    """The arguments of every t5x command in a page's code blocks; `...` stands for what is left out."""
    for block in FENCE.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if (found := COMMAND.fullmatch(line)) and "..." not in line:
                yield shlex.split(found[1], comments=True)


def anchors(page):
    """Anchors of a page's headings, where sites that show Markdown agree on them."""
    found = set()
    for heading in filter(None, map(HEADING.fullmatch, prose(page).splitlines())):
        text = heading[1].replace("`", "").lower()
        kept = re.sub(r"[^\w\- ]", "", text)
        hyphens_kept = kept.replace(" ", "-")
        if hyphens_kept == re.sub(r"[-\s]+", "-", kept):
            found.add(hyphens_kept)
    return found


def generated(page):
    """Anchors of what the site puts into a page (scripts/docs_pages.py)."""
    text = page.read_text()
    settings = "".join((ROOT / "jax_prompts" / f"{name}.py").read_text() for name in ("config", "runs"))
    classes = re.findall(r"^class (\w+)", settings, re.MULTILINE)
    return {name.lower() for name in classes} if "{{ fields }}" in text else set()


@each_page
def test_links_lead_somewhere(page):
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(file) | generated(file), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES_OF_THE_SITE, ids=named)
def test_pages_of_the_site_link_to_pages_alone(page):
    targets = [target for target in LINK.findall(prose(page)) if "://" not in target]
    assert [target for target in targets if not re.match(r"([\w-]+\.md)?(#|$)", target)] == []


def test_the_site_has_every_page():
    listed = re.findall(r"\w+: ([\w-]+\.md)$", (ROOT / "docs" / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES_OF_THE_SITE]


@each_page
def test_commands_can_be_typed_as_they_stand(page):
    macros = {macro.name for macro in read_macros()}
    for arguments in commands(page):
        if arguments == ["--help"]:
            continue
        args = parse(arguments)
        for file in getattr(args, "gin_file", ()):
            # A reader's own file is one that the page tells how to write.
            assert (ROOT / file).is_file() or f"cat > {file}" in page.read_text(), file
        for binding in args.bindings:
            name = binding.partition("=")[0]
            assert "." in name or name in macros | t5x_words.macros_for(args.command), binding


@each_page
def test_commands_are_understood_by_the_shell(page):
    blocks = [
        block for block in FENCE.findall(page.read_text()) if re.search(r"^\S*(t5x|pip|cat) ", block, re.M)
    ]
    done = subprocess.run(["bash", "-n"], input="\n".join(blocks), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@each_page
def test_commands_have_their_environment(page):
    text = page.read_text()
    if any(line.lstrip().startswith("t5x ") for block in FENCE.findall(text) for line in block.splitlines()):
        assert ENVIRONMENT in text


def test_the_readme_is_short_and_begins_with_the_set_up():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt -e '.[test]'" in lines
    for command in (".venv/bin/t5x train --gin_file=gin_configs/quickstart.gin", ".venv/bin/pytest"):
        assert any(line.split("  #")[0].strip() == command for line in lines)


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    said = "\n".join(
        text
        for package in ("jax_prompts", "tasks")
        for file in (ROOT / package).rglob("*.py")
        for text in map(_text, ast.walk(ast.parse(file.read_text())))
    )
    messages = re.findall(r"^\| `(.*?)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) > 50
    assert [message for message in messages if message not in said] == []


def _text(node):
    """A string of the code, `…` where values are put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_the_way_of_the_data_names_files_and_functions_that_are_there():
    hops = re.findall(
        r"^\d+\. `([\w/]+\.py)`, (.*?)[:;]", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    assert len(hops) > 20
    for file, names in hops:
        tree = ast.parse((ROOT / file).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for name in re.findall(r"^`(\w+)(?:\.(\w+))?`", names):
            assert set(filter(None, name)) <= defined, f"{file} defines no {'.'.join(name)}"


def test_the_layout_names_every_room():
    text = (ROOT / "docs" / "contributing.md").read_text()
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", text[text.index("## Layout") :]))
    package = ROOT / "jax_prompts"
    rooms = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms | {path.name for path in package.glob("[!_]*.py")} <= named
    assert all(any((folder / room).exists() for folder in (ROOT, package, ROOT / "tasks")) for room in named)


def test_every_method_is_on_its_pages():
    files = sorted((ROOT / "gin_configs" / "prompts").glob("*.gin"))
    for page in (ROOT / "README.md", ROOT / "docs" / "methods.md"):
        assert [file.name for file in files if f"`{file.name}`" not in page.read_text()] == [], page
    reference = (ROOT / "docs" / "reference.md").read_text().split()
    made = [f"jax_prompts.prompts.{made.__name__}" for made in (*METHODS, *INITIALIZERS)]
    made += [f"jax_prompts.tuned.{kind.__name__}" for kind in KINDS]
    assert [name for name in made if name not in reference] == []


def test_every_command_is_in_the_table_of_commands():
    index = (ROOT / "docs" / "index.md").read_text()
    assert [command.name for command in COMMANDS if f"| `t5x {command.name}` |" not in index] == []
