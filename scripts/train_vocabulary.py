"""Trains a SentencePiece vocabulary in T5's form on text files and on the small world's own sentences.

    python scripts/train_vocabulary.py --text DIRECTORY --output vocabulary.model --pieces 3996

T5's form: unigram pieces, padding 0, end of sentence 1, unknown 2, no start; sentinels are added after the
pieces when it is used.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import random
from collections.abc import Iterator

import sentencepiece

from tasks.micro import reviews, world
from tasks.sources.text_files import TextFiles, read_paragraphs


def sentences(texts: list[pathlib.Path], characters: int, generated: int) -> Iterator[str]:
    """Every n-th paragraph up to `characters` in all, then `generated` pairs of the small world."""
    files = [
        file for text in texts for file in ([text] if text.is_file() else TextFiles(text).files("train"))
    ]
    for file in files:
        budget = characters // len(files)
        for paragraph in itertools.islice(read_paragraphs([file], "train"), 0, None, 5):
            text = paragraph.decode()[:2000]
            budget -= len(text)
            if budget < 0:
                break
            yield text
    draw = random.Random(0)
    for _ in range(generated):
        for make in (*world.GENERAL, reviews.ask_about_review):
            yield " ".join(make(draw))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text",
        type=pathlib.Path,
        nargs="+",
        required=True,
        help="files, or directories of them: .txt, .txt.gz or .txt.xz",
    )
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--pieces", type=int, required=True)
    parser.add_argument("--characters", type=int, default=8_000_000, help="of text read")
    parser.add_argument("--generated", type=int, default=3_000, help="pairs of each kind of the small world")
    args = parser.parse_args()
    with args.output.open("wb") as model:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=sentences(args.text, args.characters, args.generated),
            model_writer=model,
            model_type="unigram",
            vocab_size=args.pieces,
            character_coverage=0.9995,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            max_sentence_length=8192,
            num_threads=2,
        )


if __name__ == "__main__":
    main()
