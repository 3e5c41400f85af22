"""ByT5's bytes: ids as SeqIO's ByteVocabulary and transformers' ByT5Tokenizer give them, and what a folder says."""

import json

import pytest

from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import RunError


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary("bytes")


# By transformers 4.57.6: ByT5Tokenizer()(text, add_special_tokens=False).input_ids
IDS = {
    "": [],
    "Az ": [68, 125, 35],
    "é\n\x00": [198, 172, 13, 3],
    "日🙂": [233, 154, 168, 243, 162, 156, 133],
    "x<extra_id_0>y": [123, 259, 124],
    "<extra_id_124> <extra_id_125>": [383, 35, 63, 104, 123, 119, 117, 100, 98, 108, 103, 98, 52, 53, 56, 65],
    "<extra_id_1><extra_id_10": [260, 63, 104, 123, 119, 117, 100, 98, 108, 103, 98, 52, 51],
    "a \t</s>\u2003b": [100, 1, 101],
    " <unk> <pad>": [2, 0],
}


@pytest.mark.parametrize("text", IDS)
def test_ids_of_texts(vocabulary, text):
    assert vocabulary.encode(text) == IDS[text]
    assert vocabulary.encode_all([text, text]) == [IDS[text], IDS[text]]


@pytest.mark.parametrize(
    "text", ["", " two  spaces ", "naïve 日本語 🙂", "\x00\x7f\r\n", "x <extra_id_0>y", "<extra_id_12"]
)
def test_texts_come_back(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([229, 133, 68], "A"),  # half a character
        ([229, 259, 133, 175], "<extra_id_0>"),  # a sentinel within one
        ([258, 68, 257], "A"),  # bytes that no text holds
        ([0, 68, 0, 2, 1, 69], "A<unk>"),
        ([68, 384, 10**6], "A<unk><unk>"),
    ],
)
def test_what_is_no_text_is_left_out(vocabulary, ids, text):
    assert vocabulary.decode(ids) == text


def test_lone_surrogates_read_as_in_other_vocabularies(vocabulary):
    assert vocabulary.encode("\ud83d") == vocabulary.encode("?")


def test_it_is_a_vocabulary_like_others(vocabulary):
    special = vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.begin_ids
    assert special == (0, 1, 2, ())
    assert (vocabulary.size, vocabulary.extra_ids, vocabulary.model_bytes) == (384, 125, b"")
    assert vocabulary.reads_bytes and vocabulary.first_sentinel == 258
    assert [vocabulary.id_to_piece(number) for number in (0, 3, 68, 198, 258, 259, 383)] == [
        "<pad>", "0x00", "A", "0xC3", "0xFF", "<extra_id_0>", "<extra_id_124>",
    ]  # fmt: skip
    assert len({vocabulary.id_to_piece(number) for number in range(384)}) == 384
    assert vocabulary.log_probability(68) is None
    assert vocabulary.reads_as(Vocabulary("bytes"))


def test_ids_are_those_of_seqio(vocabulary):
    seqio = pytest.importorskip("seqio")
    theirs = seqio.ByteVocabulary()
    for text in ("", "Az ", "é\n\x00", "日本語 🙂"):
        assert vocabulary.encode(text) == theirs.encode(text)
        assert vocabulary.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text))
    assert vocabulary.first_sentinel == theirs.vocab_size - 1  # which ByT5 was trained with


def folder(tmp_path, **settings):
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "ByT5Tokenizer"} | settings)
    )
    return str(tmp_path / "tokenizer_config.json")


SENTINELS = [f"<extra_id_{i}>" for i in range(125)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"extra_ids": 125, "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        {"extra_ids": 0, "additional_special_tokens": SENTINELS},
        {
            "additional_special_tokens": SENTINELS,
            "added_tokens_decoder": {
                **{str(i): {"content": token} for i, token in enumerate(("<pad>", "</s>", "<unk>"))},
                **{str(259 + i): {"content": token} for i, token in enumerate(SENTINELS)},
            },
        },
    ],
)
def test_a_folder_that_says_the_usual_is_the_same(vocabulary, tmp_path, settings):
    found = Vocabulary(folder(tmp_path, **settings))
    assert found.fingerprint == vocabulary.fingerprint
    assert found.encode("a <extra_id_7>") == [100, 35, 266]


def test_added_tokens_have_their_ids(vocabulary, tmp_path):
    path = folder(tmp_path, extra_ids=2, additional_special_tokens=["<extra_id_0>", "<extra_id_1>", "<ORG>"],
                  added_tokens_decoder={"259": {"content": "naïve", "rstrip": True}})  # fmt: skip
    found = Vocabulary(path)
    assert found.fingerprint != vocabulary.fingerprint
    # A token without an id follows those that have one, as transformers counts.
    assert found.encode("naïve  <ORG><extra_id_1>") == [259, 262, 261]
    assert found.decode([259, 262]) == "naïve<ORG>"
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<LOC>": 260}))
    assert Vocabulary(path).encode("<LOC><ORG>") == [260, 263]


@pytest.mark.parametrize("sentinels", [0, 3])
def test_as_many_sentinels_as_are_asked_for(tmp_path, sentinels):
    for path in ("bytes", folder(tmp_path, additional_special_tokens=SENTINELS)):
        found = Vocabulary(path, extra_ids=sentinels)
        assert (found.size, found.extra_ids) == (259 + sentinels, sentinels)
    assert Vocabulary("bytes", extra_ids=0).first_sentinel == 258


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenizer_class": "T5Tokenizer"}, "names no ByT5Tokenizer: set VOCABULARY"),
        ({"tokenizer_class": None}, "names no ByT5Tokenizer: set VOCABULARY"),
        ({"extra_ids": -1}, "extra_ids -1 is no number of sentinels"),
        ({"extra_ids": "x"}, "extra_ids 'x' is no number"),
        ({"added_tokens_decoder": {"100": {"content": "<a>"}}}, "'<a>' with id 100 cannot follow the bytes"),
        ({"added_tokens_decoder": {"1": {"content": "<a>"}}}, "'<a>' has the id of </s>"),
        (
            {"added_tokens_decoder": {"259": {"content": "a", "single_word": True}}},
            "'a' with id 259 cannot follow",
        ),
        ({"added_tokens_decoder": {"259": {"content": ""}}}, "'' with id 259 cannot follow the bytes"),
        (
            {"added_tokens_decoder": {"9999999999": {"content": "<a>"}}},
            "'<a>' with id 9999999999 cannot follow",
        ),
        ({"additional_special_tokens": [""]}, "'' with id 259 cannot follow the bytes"),
        ({"pad_token": "<extra_id_0>"}, "pad_token <extra_id_0> has id 259"),
        ({"eos_token": "<end>"}, "eos_token <end> has id None"),
        ({"split_special_tokens": True}, "split_special_tokens True is not supported"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_in_one_line(tmp_path, settings, words):
    with pytest.raises(RunError) as caught:
        Vocabulary(folder(tmp_path, **settings))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "", "\x00"])
def test_a_damaged_folder_is_one_line(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(RunError) as caught:
        Vocabulary(str(tmp_path / "tokenizer_config.json"))
    assert "\n" not in str(caught.value)
