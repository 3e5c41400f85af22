"""Pre-training tasks: lengths, masks, that no text is lost, and text files."""

from __future__ import annotations

import gzip
import lzma
import pathlib
import types

import numpy as np
import pytest
import seqio
import tensorflow as tf

import tasks.registry  # noqa: F401
from tasks.errors import TaskError
from tasks.text.objectives import corrupt_spans, corrupted_lengths, noise_mask, noise_shape, span_corruption

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
NOISE = b"\n".join(b"%d" % number for number in np.random.default_rng(0).integers(2**60, size=1000))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """3,000 paragraphs in three files of three kinds."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("corpus")
    lines = [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(3, 30))) for i in range(3000)]
    parts = ["\n".join([*lines[i::3], ""]).encode() for i in range(3)]
    (folder / "a.txt").write_bytes(parts[0])
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt.gz").write_bytes(gzip.compress(parts[1]))
    (folder / "c.txt.xz").write_bytes(lzma.compress(parts[2]))
    (folder / "SOURCES.md").write_text("no text of the corpus")
    return folder


def _rows(
    name: str,
    folder: pathlib.Path,
    vocabulary: seqio.Vocabulary,
    lengths: tuple[int, int],
    split: str = "train",
) -> list[dict[str, list[int]]]:
    task = seqio.TaskRegistry.get(name)
    features = dict.fromkeys(("inputs", "targets"), seqio.Feature(vocabulary, add_eos=True))
    task = task.replace(source=task.source.at(folder), output_features=features)
    sequence_length = dict(zip(("inputs", "targets"), lengths, strict=True))
    dataset = task.get_dataset(sequence_length, split=split, shuffle=False, seed=0)
    batches = [{name: ids.to_list() for name, ids in batch.items()} for batch in dataset.ragged_batch(1024)]
    return [
        {"inputs": inputs, "targets": targets}
        for batch in batches
        for inputs, targets in zip(batch["inputs"], batch["targets"], strict=True)
    ]


def _joined(folder: pathlib.Path, vocabulary: seqio.Vocabulary, split: str = "train") -> list[int]:
    source = seqio.TaskRegistry.get("span_corruption").source.at(folder)
    texts = [x["text"].decode() for x in source.get_dataset(split).as_numpy_iterator()]
    assert len(texts) > 2048  # several blocks are joined
    return [token for text in texts[:2048] for token in vocabulary.encode(text)]


def test_lengths_of_the_paper():
    # T5's pre-training: rows of 512 and 114 tokens come of 568; its noise is 85 tokens in 28 spans.
    assert corrupted_lengths(568) == (512, 114)
    assert noise_shape(568) == (85, 28)


@pytest.mark.parametrize("length", [2, 3, 20, 123, 568])
def test_masks_hold_the_same_noise_in_every_row(length: int):
    noise, spans = noise_shape(length)
    mask = noise_mask(200, length, np.random.default_rng(0))
    assert (mask.sum(axis=1) == noise).all()
    starts = mask & ~np.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    assert (starts.sum(axis=1) == spans).all()
    assert not mask[:, 0].any()
    assert mask[:, -1].all()


def test_every_placing_of_spans_is_equally_likely():
    noise, spans = noise_shape(33)
    assert (noise, spans) == (5, 2)
    rows = 27_000
    mask = noise_mask(rows, 33, np.random.default_rng(0))
    _, counts = np.unique(mask, axis=0, return_counts=True)
    assert len(counts) == 4 * 27  # cuts of 5 in two, times cuts of 28 in two
    assert abs(counts - rows / 108).max() < 5 * np.sqrt(rows / 108)


def test_spans_become_sentinels():
    tokens = np.arange(10, 20)[None]
    noise = np.array([[0, 0, 1, 1, 0, 0, 0, 1, 0, 1]], bool)
    inputs, targets = corrupt_spans(tokens, noise, 99)
    assert inputs.tolist() == [[10, 11, 99, 14, 15, 16, 98, 18, 97]]
    assert targets.tolist() == [[99, 12, 13, 98, 17, 97, 19]]


@pytest.mark.parametrize("lengths", [(48, 16), (113, 40), (512, 114)])
def test_span_corruption_fills_rows_and_loses_no_text(corpus, vocabulary, lengths: tuple[int, int]):
    rows = _rows("span_corruption", corpus, vocabulary, lengths)
    assert {len(row["inputs"]) for row in rows} == {lengths[0]}
    assert len({len(row["targets"]) for row in rows}) == 1
    text: list[int] = []
    last = vocabulary.vocab_size - 1
    for row in rows:
        assert row["inputs"][-1] == row["targets"][-1] == vocabulary.eos_id
        spans: dict[int, list[int]] = {}
        for token in row["targets"][:-1]:
            if token > last - 100:
                spans[token] = span = []
            else:
                span.append(token)
        assert list(spans) == list(range(last, last - len(spans), -1))
        for token in row["inputs"][:-1]:
            text += spans.pop(token, [token])
        assert not spans
    joined = _joined(corpus, vocabulary)
    kept = len(joined) - len(joined) % (len(text) // len(rows))
    assert text[:kept] == joined[:kept]


def test_spans_of_bytes_are_those_of_byt5(corpus):
    """Of 20 on average, marked by the last bytes; 11 of them are in no text, which is as many as there can be."""
    from jax_prompts.data.numpy_vocabulary import TokenizerVocabulary
    from jax_prompts.data.vocabularies.sentencepiece import Vocabulary

    vocabulary = TokenizerVocabulary(Vocabulary("bytes"))
    rows = _rows("span_corruption", corpus, vocabulary, (1024, 200))
    assert {(len(row["inputs"]), len(row["targets"])) for row in rows} == {(1024, 189)}
    assert noise_shape(1196, 20.0) == (179, 9)
    read = [token for row in rows for token in row["inputs"] if token > 247]
    assert read == [*range(258, 249, -1)] * len(rows)
    text = bytes(token - 3 for token in rows[0]["inputs"] if 3 <= token < 248).decode()
    assert all(word in text for word in ("quick", "brown"))
    with pytest.raises(TaskError, match=r"inputs 2000 needs 18 sentinels, .*; the vocabulary has 11"):
        _rows("span_corruption", corpus, vocabulary, (2000, 2000))


@pytest.mark.parametrize("lengths", [(32, 32), (40, 12), (12, 40)])
def test_prefix_lm_cuts_anywhere_and_loses_no_text(corpus, vocabulary, lengths: tuple[int, int]):
    rows = _rows("prefix_lm", corpus, vocabulary, lengths)
    assert all(row["inputs"][-1] == row["targets"][-1] == vocabulary.eos_id for row in rows)
    text = [token for row in rows for name in ("inputs", "targets") for token in row[name][:-1]]
    joined = _joined(corpus, vocabulary)
    kept = len(joined) - len(joined) % lengths[0]
    assert text[:kept] == joined[:kept]
    read = np.array([len(row["inputs"]) - 1 for row in rows])
    written = np.array([len(row["targets"]) - 1 for row in rows])
    assert (read + written == lengths[0]).all()
    first = max(1, lengths[0] - lengths[1] + 1)
    assert set(read) == set(range(first, lengths[0]))
    assert np.mean(read) == pytest.approx((first + lengths[0] - 1) / 2, rel=0.05)


@pytest.mark.parametrize("name", ["span_corruption", "prefix_lm"])
def test_rows_are_the_same_every_time(corpus, vocabulary, name: str):
    once, again = (_rows(name, corpus, vocabulary, (48, 16), "train[:500]") for _ in range(2))
    assert len(once) > 50
    assert once == again


def test_sentinels_that_are_not_the_last_ids_are_refused(vocabulary):
    class First(seqio.SentencePieceVocabulary):
        """Its sentinels stand in front."""

        @property
        def tokenizer(self):
            return types.SimpleNamespace(
                GetPieceSize=lambda: 400,
                id_to_piece=lambda number: f"<extra_id_{number}>" if number < 100 else "piece",
            )

    first = First(vocabulary.sentencepiece_model_file, extra_ids=100)
    with pytest.raises(TaskError, match=r"needs 1 sentinels, .*; the vocabulary has 0"):
        span_corruption(
            tf.data.Dataset.range(1),
            {"inputs": 16, "targets": 16},
            dict.fromkeys(("inputs", "targets"), seqio.Feature(first)),
        )


def test_validation_is_a_hundredth_never_in_train(corpus: pathlib.Path):
    source = seqio.TaskRegistry.get("prefix_lm").source.at(corpus)
    assert [path.name for path in source.files("train")] == ["a.txt", "c.txt.xz", "b.txt.gz"]
    train, validation = (
        {x["text"] for x in source.get_dataset(split).as_numpy_iterator()}
        for split in ("train", "validation")
    )
    assert len(train | validation) == len(train) + len(validation) == 3000
    assert 15 <= len(validation) <= 45
    sliced = [x["text"] for x in source.get_dataset("train[:10%]+validation[1:2]").as_numpy_iterator()]
    assert len(sliced) == round(len(train) / 10) + 1


def test_text_too_short_for_a_row_gives_none(tmp_path: pathlib.Path, vocabulary):
    (tmp_path / "a.txt").write_text("the fox")
    assert _rows("span_corruption", tmp_path, vocabulary, (48, 16)) == []


@pytest.mark.parametrize(
    ("name", "lengths", "reason"),
    [
        ("span_corruption", (48, 11), "targets 11: span corruption of inputs 48 needs 12"),
        ("span_corruption", (2, 12), "inputs 2: span corruption needs at least 3"),
        (
            "span_corruption",
            (4000, 4000),
            "needs 222 sentinels, <extra_id_0> as the last id; the vocabulary has 100",
        ),
        ("prefix_lm", (1, 8), "needs at least 2"),
    ],
)
def test_lengths_that_cannot_work_are_refused(
    corpus, vocabulary, name: str, lengths: tuple[int, int], reason: str
):
    with pytest.raises(TaskError, match=reason):
        _rows(name, corpus, vocabulary, lengths)


def test_no_data_dir_no_directory_and_no_text_are_refused(tmp_path: pathlib.Path):
    source = seqio.TaskRegistry.get("span_corruption").source
    with pytest.raises(TaskError, match="set DATA_DIR"):
        source.get_dataset("train")
    with pytest.raises(TaskError, match="is not a directory"):
        source.at(tmp_path / "nowhere")
    with pytest.raises(TaskError, match=r"holds no \.txt"):
        source.at(tmp_path).get_dataset("train")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"one line\nbad \xff byte\n", r"a\.txt, line 2: not UTF-8"),
        ("a.txt.xz", lzma.compress(NOISE)[:4000], r"a\.txt\.xz cannot be read to its end"),
        ("a.txt.gz", gzip.compress(NOISE)[:4000], r"a\.txt\.gz cannot be read to its end"),
        ("a.txt.gz", b"no gzip at all", r"a\.txt\.gz cannot be read to its end"),
    ],
)
def test_damaged_text_is_named(tmp_path: pathlib.Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    source = seqio.TaskRegistry.get("span_corruption").source.at(tmp_path)
    # TensorFlow wraps what a generator raises; the message is kept.
    with pytest.raises(tf.errors.OpError, match=f"(TaskError|BadLine): .*{reason}"):
        list(source.get_dataset("train").as_numpy_iterator())
