"""Settings of a task made of the user's own files: plain values, free of heavy imports."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """A task made of the user's own files, named by MIXTURE_OR_TASK_NAME.

    Files are `.jsonl` (one object a line), `.csv` or `.tsv`, each with named columns; paths are relative to DATA_DIR,
    or to the working directory where that is not set.

    Attributes:
      train: file that trains; None where there is none.
      validation: file that chooses the prompt; None where there is none.
      test: file of split `test`, for EVAL_SPLIT or a protocol that asks for it; None where there is none.
      inputs: the text the model reads; `{column}` stands for the column's text, `{{` for a brace.
      target: the text it should answer, or what `labels` translates.
      labels: word of each label, `{'0': 'negative', '1': 'positive'}`; None: answers are free text.
      answers: column with a list of all answers that are right, for the metric `squad`; its first is the target.
      metrics: of classes `accuracy`, `f1_with_invalid`, `mean_multiclass_f1`, `matthews`; of free text `accuracy`,
        `normalized_match`; of numbers `pearson`, `spearman`; of lists of answers `squad`.
      tsv_quotes: whether cells of a `.tsv` may be quoted, as those of a `.csv`: `"He said ""fine""."`; None: yes where
        every cell that begins with a quote also ends with one.
      id: column that tells rows apart; it must not repeat, and stands beside predictions.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    inputs: str = "{text}"
    target: str = "{label}"
    labels: dict[str, str] | None = None
    answers: str | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    tsv_quotes: bool | None = None
    id: str | None = None
