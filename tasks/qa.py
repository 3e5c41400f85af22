"""Extractive question answering: `squad_v010_allanswers` (Rajpurkar et al. 2016) and the sets of MRQA 2019.

`mrqa_X_v100_examples` with X one of the six sets for training, or one of the six of other domains, which are for
evaluation alone: their validation is TFDS's test split. Official files lie in `mrqa/train` and `mrqa/dev`.
"""

from tasks import registration
from tasks.metrics import answers
from tasks.sources import nested
from tasks.sources.seqio_sources import TfdsSource
from tasks.text import passages, postprocessors

IN_DOMAIN = {  # TFDS's name -> name of the official files
    "squad": "SQuAD",
    "news_qa": "NewsQA",
    "trivia_qa": "TriviaQA-web",
    "search_qa": "SearchQA",
    "hotpot_qa": "HotpotQA",
    "natural_questions": "NaturalQuestionsShort",
}
OUT_OF_DOMAIN = {
    "bio_asq": "BioASQ",
    "drop": "DROP",
    "duo_rc": "DuoRC.ParaphraseRC",
    "race": "RACE",
    "relation_extraction": "RelationExtraction",
    "textbook_qa": "TextbookQA",
}


def _files(name: str, part: str) -> tuple[str, ...]:
    places = (f"{part}/{name}", f"{name}.{part}")
    return tuple(f"{place}.{ending}" for place in places for ending in ("jsonl.gz", "jsonl"))


registration.add(
    "squad_v010_allanswers",
    TfdsSource(
        "squad/v1.1:3.0.0",
        nested.Nested(
            "squad_v1.1", "", {"train": "train-v1.1*.json", "validation": "dev-v1.1*.json"}, nested.squad
        ),
    ),
    (passages.squad,),
    family="qa",
    postprocess_fn=postprocessors.answers,
    metric_fns=(answers.squad,),
    taskless=False,
)
for task, name in (IN_DOMAIN | OUT_OF_DOMAIN).items():
    parts = {"train": "train", "validation": "dev"} if task in IN_DOMAIN else {"validation": "dev"}
    registration.add(
        f"mrqa_{task}_v100_examples",
        TfdsSource(
            f"mrqa/{task}:1.0.0",
            nested.Nested(
                "mrqa", "", {split: _files(name, part) for split, part in parts.items()}, nested.mrqa
            ),
            tfds_splits={} if task in IN_DOMAIN else {"validation": "test"},
        ),
        (passages.mrqa,),
        family="qa",
        postprocess_fn=postprocessors.answers,
        metric_fns=(answers.squad,),
        taskless=False,
    )
