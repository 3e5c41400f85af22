"""Official files of a data set, whose examples become the dictionaries that TFDS makes of them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.errors import TaskError
from tasks.sources.bad_lines import all_bad, tolerated
from tasks.sources.lines import Place

UNLABELLED = -1  # TFDS's class of an example without a label
KEYS = ("idx", "id", "qid")  # what numbers or names an example, in one data set or another


@dataclasses.dataclass(frozen=True)
class Files:
    """Official files of one data set, a file a split. Subclasses say what they hold.

    Attributes:
      folder: directory of the files (`CB`).
      suite: directory above it (`superglue`); `DATA_DIR/suite/folder` and `DATA_DIR/folder` will both do.
      names: file of each split, or several names that it may have; `*` stands for anything.
      url: where the files are had.
    """

    folder: str
    suite: str
    names: Mapping[str, str | Sequence[str]]
    url: str = dataclasses.field(default="", kw_only=True)

    def wanted(self, split: str) -> str:
        """Name of the file to put under DATA_DIR for a split, and where it is had."""
        name = self.names[split]
        file = pathlib.PurePath(self.suite, self.folder, name if isinstance(name, str) else name[0])
        return f"{file} from {self.url}" if self.url else str(file)

    def examples(self, path: pathlib.Path, split: str) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Place of each example, and the dictionary that TFDS makes of it.

        Raises:
          TaskError: the file cannot be read, or what it holds is malformed; names the place.
        """
        raise NotImplementedError

    def file(self, data_dir: pathlib.Path, split: str) -> pathlib.Path:
        """Path of the file of a split.

        Raises:
          TaskError: there is none; says where it was looked for.
        """
        names = self.names[split]
        patterns = [names] if isinstance(names, str) else names
        folders = dict.fromkeys((data_dir / self.suite / self.folder, data_dir / self.folder))
        for folder in folders:
            for pattern in patterns:
                if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
                    return found[0]
        places = " nor ".join(str(folder / pattern) for folder in folders for pattern in patterns)
        raise TaskError(
            f"DATA_DIR {data_dir} has no {split} file: neither {places} exists; "
            f"put the official {self.folder} files there" + (f", from {self.url}" if self.url else "")
        )

    def remedy(self, path: pathlib.Path, split: str) -> str:
        """What to do about a file without examples."""
        return f"put {self.wanted(split)} there"

    def read(self, path: pathlib.Path, split: str) -> list[dict[str, Any]]:
        """Examples of a file, in order and checked.

        Raises:
          TaskError: as `examples`, or the file is empty or holds an example twice.
        """
        examples, places = [], dict[str, Place]()
        for place, example in self.examples(path, split):
            key = next((json.dumps(example[name]) for name in KEYS if name in example), str(len(places)))
            with tolerated():
                if key in places:
                    raise place.error(f"the same number or name ({key}) as {places[key].where}")
                places[key] = place
                examples.append(example)
        if not examples:
            reason = all_bad(str(path)) or self.remedy(path, split)
            raise TaskError(f"{path} holds no examples; {reason}")
        return examples
