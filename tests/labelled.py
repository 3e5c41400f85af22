"""A token cache in memory: texts with labels, scored as a task with these labels is."""

import functools

import numpy as np

from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import RaggedTokens
from tasks.metrics.labels import accuracy
from tasks.text.postprocessors import label_id


class LabelledCache(TokenCache):
    """Example i has the inputs `texts[i]` and the target `targets[i]`."""

    def __init__(
        self,
        targets,
        labels,
        *,
        task="labelled",
        metrics=(accuracy,),
        texts=None,
        encode=None,
        fields=(),
        chooses=True,
    ):
        self.task, self.split, self.labels, self.metrics = task, "validation", labels, list(metrics)
        self.targets, self.chooses = list(targets), chooses
        self.texts = texts or [f"text {i % 7}" for i in range(len(self.targets))]
        self.fields = list(fields) or [{}] * len(self.targets)
        self.encode = encode or (lambda text: [ord(letter) for letter in text])
        self.longest_inputs = max(len(self.encode(text)) for text in self.texts) + 1
        self.longest_targets = max(len(self.encode(text)) for text in self.targets) + 1
        if labels is not None:
            self.postprocess = functools.partial(label_id, label_classes=labels)

    def __len__(self):
        return len(self.targets)

    @property
    def input_lengths_N(self):
        return np.array([len(self.encode(text)) + 1 for text in self.texts])

    def postprocess(self, text, **_):
        return text

    def example(self, index):
        return {
            "inputs_pretokenized": self.texts[index],
            "targets_pretokenized": self.targets[index],
            **self.fields[index],
        }

    def rows(self, index_B):
        return (
            RaggedTokens.of(np.array([*self.encode(self.texts[i]), 1]) for i in index_B),
            RaggedTokens.of(np.array([*self.encode(self.targets[i]), 1]) for i in index_B),
        )
