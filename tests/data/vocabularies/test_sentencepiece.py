"""Our ids against SeqIO's, and errors that say what to do."""

from __future__ import annotations

import pathlib
import random
import unicodedata

import pytest

from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError, RunError

ODD_TEXTS = [
    "",
    " ",
    "Hello, world!  two  spaces\tand\na line",
    "naïve café — “quotes” … ½ ﬁ \uff21",
    "<extra_id_0> starts, <extra_id_3> is inside, <extra_id_99>",
    "joined<extra_id_1> and <extra_id_1>joined <extra_id_100>",
    "</s> <pad> <unk> ▁ ▁▁x",
    "中文 العربية हिन्दी 🙂 👩‍👩‍👧",
    "control \x00\x01\x7f\u200b\ufeff\u00ad chars",
    "a" * 3000,
    "e\u0301 \u1e9b\u0323",
]


def test_size_and_sentinels_are_t5s(t5_vocabulary_path: str) -> None:
    vocabulary = Vocabulary(t5_vocabulary_path)
    assert vocabulary.size == 32_100
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert vocabulary.encode("<extra_id_0>") == [32_099]
    ids = vocabulary.encode("Thank you <extra_id_3> inviting")
    assert 32_096 in ids
    assert vocabulary.decode(ids) == "Thank you <extra_id_3> inviting"


def test_ids_equal_seqios(t5_vocabulary_path: str) -> None:
    seqio = pytest.importorskip("seqio")
    theirs = seqio.SentencePieceVocabulary(t5_vocabulary_path, extra_ids=100)
    ours = Vocabulary(t5_vocabulary_path)
    assert ours.size == theirs.vocab_size
    draw = random.Random(0)
    letters = [chr(i) for i in range(1, 0x3000) if unicodedata.category(chr(i)) not in ("Cs", "Cn")]
    noise = ["".join(draw.choices(letters, k=30)) for _ in range(50)]
    for text in ODD_TEXTS + noise:
        ids = ours.encode(text)
        assert ids == list(theirs.encode(text)), repr(text)
        assert ids == theirs.encode_tf(text).numpy().tolist(), repr(text)
        assert ours.decode(ids) == theirs.decode(ids), repr(text)
    assert ours.encode_all(ODD_TEXTS + noise) == [ours.encode(text) for text in ODD_TEXTS + noise]
    for _ in range(50):
        ids = [draw.randrange(2, 32_200) for _ in range(20)]
        assert ours.decode([*ids, 1, 5, 6]) == theirs.decode([*ids, 1, 5, 6])


def test_decode_stops_at_the_end_of_sentence_and_drops_padding(small_vocabulary: Vocabulary) -> None:
    ids = small_vocabulary.encode("the quick fox")
    assert small_vocabulary.decode([*ids, 1, *ids]) == "the quick fox"
    assert small_vocabulary.decode([0, *ids, 0, 0]) == "the quick fox"
    assert small_vocabulary.decode([small_vocabulary.size + 7]) == small_vocabulary.decode([2])


def test_lone_surrogates_do_not_stop_a_run(small_vocabulary: Vocabulary) -> None:
    assert small_vocabulary.encode("fox \ud800") == small_vocabulary.encode("fox ?")


def test_fingerprint_tells_sentinels_apart(t5_vocabulary_path: str) -> None:
    with_sentinels, without = Vocabulary(t5_vocabulary_path), Vocabulary(t5_vocabulary_path, extra_ids=0)
    assert with_sentinels.fingerprint == Vocabulary(t5_vocabulary_path, extra_ids=100).fingerprint
    assert with_sentinels.fingerprint != without.fingerprint
    assert without.size == 32_000


def test_a_model_with_its_own_sentinels_gets_no_more(small_vocabulary: Vocabulary, tmp_path) -> None:
    path = tmp_path / "own.model"
    path.write_bytes(small_vocabulary._processor.serialized_model_proto())
    assert Vocabulary(str(path)).size == small_vocabulary.size
    assert Vocabulary(str(path)).encode("<extra_id_0>") == [small_vocabulary.size - 1]


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x0a\x05abc"])
def test_bad_files_are_named(tmp_path, content: bytes | None) -> None:
    path = tmp_path / "bad.model"
    if content is not None:
        path.write_bytes(content)
    kind = ConfigError if content is None else RunError
    with pytest.raises(kind, match=r"bad\.model .*VOCABULARY") as caught:
        Vocabulary(str(path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_json_is_the_same_vocabulary(t5_vocabulary_path: str) -> None:
    spiece = Vocabulary(t5_vocabulary_path)
    json_file = Vocabulary(str(pathlib.Path(t5_vocabulary_path).parent / "t5-base-tokenizer.json"))
    assert json_file.size == spiece.size
    assert json_file.fingerprint == spiece.fingerprint
    for text in ODD_TEXTS:
        assert json_file.encode(text) == spiece.encode(text), repr(text)
        assert json_file.decode(spiece.encode(text)) == spiece.decode(spiece.encode(text))


def test_another_kind_of_tokenizer_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tokenizer.json"
    for content in ('{"model": {"type": "BPE", "vocab": {}}}', "{}", "no json"):
        path.write_text(content)
        with pytest.raises(RunError, match=r"tokenizer\.json is not a SentencePiece model") as caught:
            Vocabulary(str(path))
        assert "\n" not in str(caught.value)
