"""What every task here gives the model: text in, text out, in T5's vocabulary until another is put in its place."""

import seqio

# Loaded when first used. The cache is filled with the vocabulary of the run: `task.replace(output_features=...)`.
VOCABULARY = seqio.SentencePieceVocabulary("gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model")
OUTPUT_FEATURES = {
    "inputs": seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
    "targets": seqio.Feature(vocabulary=VOCABULARY, add_eos=True),
}
TOKENIZE = (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim)
