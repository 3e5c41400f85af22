"""Writes the pages that the site is built from: those of docs/, with tables of settings and CONTRIBUTING.md put in.

A page names them in double braces: `{{ macros }}`, `{{ fields }}`, `{{ contributing }}`. `scripts/docs.sh` runs this.
"""

import dataclasses
import pathlib
import re
import shutil
import sys

from jax_prompts import config, runs
from jax_prompts.cli.macros import Macro, read_macros

ROOT = pathlib.Path(__file__).parents[1]
CLASSES = (
    config.BaseModel, config.Data, config.OwnTask, config.PromptDesign, config.Optimizer, config.Decoding,
    config.Training, runs.TrainRun, runs.EvalRun, runs.InferRun, runs.InferTaskRun, runs.Suite,
)  # fmt: skip


def write_pages(target: pathlib.Path) -> None:
    """Copies docs/ to `target`, in place of what is there, with every page complete."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target, ignore=shutil.ignore_patterns("*.yml"))
    for page in target.glob("*.md"):
        page.write_text(completed(page.read_text()))


def completed(markdown: str) -> str:
    """The text of a page with what its double braces name."""
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda found: _PARTS[found[1]](), markdown, flags=re.MULTILINE)


def macros() -> str:
    """The macros, a table for each section of gin_configs/defaults.gin."""
    sections: dict[str, list[Macro]] = {}
    for macro in read_macros():
        sections.setdefault(macro.section, []).append(macro)
    return "\n\n".join(f"### {section}\n\n{_macro_table(found)}" for section, found in sections.items())


def _macro_table(macros: list[Macro]) -> str:
    rows = []
    for macro in macros:
        default = "required" if macro.default is None else f"`{macro.default}`"
        small = "sets " + ", ".join(f"`{field}`" for field in macro.fields) if macro.fields else ""
        rows.append((f"`{macro.name}`<br>{default}", _told(macro.meaning, small)))
    return _table(("macro and default", "meaning"), rows)


def fields() -> str:
    """The classes of config.py and runs.py, a table of fields for each."""
    set_by = {field: macro.name for macro in read_macros() for field in macro.fields}
    return "\n\n".join(_class_section(made, set_by) for made in CLASSES)


def _class_section(made: type, set_by: dict[str, str]) -> str:
    meanings, rows = field_meanings(made), []
    for field in dataclasses.fields(made):
        macro = set_by.get(f"{made.__name__}.{field.name}")
        small = f"type `{field.type}`" + (f", macro `{macro}`" if macro else "")
        rows.append((f"`{field.name}`<br>{_default(field)}", _told(meanings[field.name], small)))
    summary = re.sub(r"\n {4}", "\n", (made.__doc__ or "").partition("Attributes:")[0]).strip()
    return f"### {made.__name__}\n\n{summary}\n\n{_table(('field and default', 'meaning'), rows)}"


def field_meanings(made: type) -> dict[str, str]:
    """What the `Attributes:` of a class's docstring say of each field; `a, b: text` is said of both."""
    meanings: dict[str, str] = {}
    for line in (made.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        if found := re.fullmatch(r" {6}(\w[\w, ]*): (.+)", line):
            names = found[1].split(", ")
            meanings |= dict.fromkeys(names, found[2])
        elif line.startswith(8 * " "):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings


def contributing() -> str:
    """CONTRIBUTING.md, its links to pages of the site as they are there."""
    return (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")


def _default(field: dataclasses.Field) -> str:
    made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if dataclasses.is_dataclass(made):
        return f"`{type(made).__name__}()`"
    return "required" if made is dataclasses.MISSING else f"`{made!r}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, len(head) * ("---",), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _told(meaning: str, small: str) -> str:
    """A cell of prose, with small print under it."""
    plain = re.sub(r"([*<])", r"\\\1", meaning)  # themselves, not Markdown
    return f"{plain}<br><small>{small}</small>" if small else plain


_PARTS = {"macros": macros, "fields": fields, "contributing": contributing}


if __name__ == "__main__":
    write_pages(pathlib.Path(sys.argv[1]))
