"""What a run asks of its task is compared before data is read; whatever a task's own code does."""

import dataclasses
import functools
import importlib
import types

import pytest

from jax_prompts.base_models.build import make_vocabulary
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.data import fill
from jax_prompts.errors import ConfigError
from jax_prompts.task_check import check_task
from jax_prompts.train import open_checked
from tasks.metrics.labels import accuracy
from tasks.text.postprocessors import label_id


def run_of(*settings):
    flags = [f"--gin.{setting}" for setting in settings]
    return resolve(parse(["train", "--gin_file=gin_configs/quickstart.gin", *flags]), "TrainRun")[0]


@pytest.mark.parametrize("setting", ["METRIC=acuracy", "EVAL_SPLIT=validatoin"])
def test_training_reads_no_data_for_what_cannot_be(tmp_path, setting):
    run = run_of(f"CACHE_DIR={tmp_path}", f"MODEL_DIR={tmp_path}", setting)
    with pytest.raises(ConfigError, match=setting.partition("=")[2]):
        open_checked(run, [run.data], make_vocabulary(run.model))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "task", ["super_glue_multirc_v102", "super_glue_record_v102", "glue_stsb_v200", "squad"]
)
def test_names_of_metrics_are_known_without_examples(task):
    importlib.import_module("tasks.registry")
    names = [name for name in sorted(fill.seqio.TaskRegistry.names()) if name.startswith(task)]
    for name in names:
        run = run_of(f"MIXTURE_OR_TASK_NAME={name}", "METRIC=no_metric")
        data = dataclasses.replace(run.data, eval_split="validation")
        with pytest.raises(ConfigError, match=f"'no_metric' is no metric of {name}; use "):
            check_task(dataclasses.replace(run, data=data))
    assert names


def test_what_only_examples_can_tell_is_left_to_them(monkeypatch):
    def own(text, *, example, is_target, label_classes):
        raise KeyError(example["mine"])

    def task(postprocess):
        kept = functools.partial(postprocess, label_classes=("a", "b"))
        return types.SimpleNamespace(name="own", postprocessor=kept, predict_metric_fns=[accuracy])

    run = run_of("METRIC=no_metric")
    monkeypatch.setattr(fill, "checked_tasks", lambda data: [task(own)])
    check_task(run)
    monkeypatch.setattr(fill, "checked_tasks", lambda data: [task(label_id)])
    with pytest.raises(ConfigError, match="'no_metric' is no metric of own; use accuracy"):
        check_task(run)


def test_files_may_have_splits_that_tfds_lacks(tmp_path):
    (tmp_path / "classification_misc").mkdir()
    run = run_of("MIXTURE_OR_TASK_NAME=imdb_v100", f"DATA_DIR={tmp_path}")
    check_task(run)
    with pytest.raises(ConfigError, match="imdb_v100 has no split 'validation': use train"):
        check_task(dataclasses.replace(run, data=dataclasses.replace(run.data, data_dir=None)))
