"""`t5x eval` of several prompts: one report whatever the lengths, jobs of several tasks, stopped and gone on with."""

import json
import time

import jax
import numpy as np
import pytest
from bucket_servers import google_bucket
from several import launched

from jax_prompts.inference import predict
from jax_prompts.main import main
from jax_prompts.prompts import PromptMetadata, save_prompt
from jax_prompts.storage import buckets
from jax_prompts.storage import files as files_of_any

TASK = "quickstart_reviews"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Prompt files of two lengths; the last is of another task."""
    folder = tmp_path_factory.mktemp("prompts")
    for number, (length, task) in enumerate([(3, TASK), (3, TASK), (5, TASK), (3, "another")]):
        prompt_PD = np.array(jax.random.normal(jax.random.key(number), (length, 192)))
        save_prompt(folder / f"{task}-{number}.safetensors", prompt_PD, PromptMetadata(task=task))
    return folder


@pytest.fixture(scope="module")
def t5x_eval(tmp_path_factory, compiled_once):
    caches = tmp_path_factory.mktemp("caches")

    def run(directory, files, **macros):
        macros = {"PROMPT_FILES": files, "MODEL_DIR": directory, "CACHE_DIR": caches, **macros}
        settings = {"SCAN_LAYERS": True, "EVAL_SPLIT": "validation[:24]", "EVAL_BATCH_SIZE": 16, **macros}
        flags = [f"--gin.{name}={value}" for name, value in settings.items()]
        main(
            ["eval", "--gin_file=gin_configs/quickstart.gin", "--gin_file=gin_configs/runs/eval.gin", *flags]
        )
        return json.loads(files_of_any.read(f"{directory}/eval.json", 1 << 24))

    return run


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_a_report_of_prompts_of_two_lengths(prompts, t5x_eval, tmp_path):
    found = t5x_eval(tmp_path / "eval", (f"{prompts}/{TASK}-*.safetensors",))
    files = [f"{prompts}/{TASK}-{number}.safetensors" for number in range(3)]
    assert list(found["metrics"]) == files
    names = {"accuracy", "mean_log_probability/accuracy", "mean_rank/accuracy"}
    assert found["ensemble"][TASK].keys() == names
    accuracies = [found["metrics"][file][TASK]["accuracy"] for file in files]
    over = found["over_prompts"]
    assert over["mean"][TASK]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert over["deviation"][TASK]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert found["metrics"][over["best"]][TASK]["accuracy"] == max(accuracies)
    (ensemble,) = (tmp_path / "eval" / "predictions").glob(f"{TASK}-ensemble-*")
    assert len(rows(ensemble)) == 24 and all(len(row["votes"]) == 3 for row in rows(ensemble))
    assert not (tmp_path / "eval" / "answers").exists()

    alone = t5x_eval(tmp_path / "alone", (files[2],))
    assert alone["metrics"][files[2]] == found["metrics"][files[2]]
    assert "ensemble" not in alone and "over_prompts" not in alone


@pytest.mark.slow
def test_a_job_of_several_tasks_goes_on_where_it_was_stopped(
    prompts, t5x_eval, tmp_path, monkeypatch, capsys
):
    files = (f"{prompts}/{TASK}-0.safetensors", f"{prompts}/another-3.safetensors")
    job = {TASK: files, "micro_reviews": files[:1], "micro_world": ()}
    answer, left, answered = predict.answered_texts, [0], []

    def limited(*args):
        """Answers, until as many batches as are `left` are answered."""
        for texts in answer(*args):
            yield texts
            answered.append(len(texts))
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

    monkeypatch.setattr("jax_prompts.scoring.evaluator.answered_texts", limited)
    whole = t5x_eval(tmp_path / "whole", job)
    once, answered[:] = sum(answered), []
    for left[0] in (1, 2):
        with pytest.raises(SystemExit) as ended:
            t5x_eval(tmp_path / "stopped", job)
        assert ended.value.code == 75
        assert "the same command goes on behind it" in capsys.readouterr().err
    assert t5x_eval(tmp_path / "stopped", job) == whole
    assert sum(answered) == once
    assert whole["tasks"].keys() == job.keys()
    refused = whole["tasks"][TASK]["ensemble"]
    assert refused == {"refused": f"prompts of different tasks: another, {TASK}"}
    assert "no prompt" in whole["tasks"]["micro_world"]["metrics"]
    for task in job:
        written = json.loads((tmp_path / "stopped" / task / "eval.json").read_text())
        assert written == whole["tasks"][task]


@pytest.mark.slow
def test_answers_of_another_role_are_not_taken(prompts, t5x_eval, tmp_path, monkeypatch):
    """Roles may be parts of one split, whose tokens are the same."""
    files, answer = (f"{prompts}/{TASK}-0.safetensors",), predict.answered_texts

    def stopped(*args):
        yield next(answer(*args))
        raise KeyboardInterrupt

    settings = {"PROTOCOL": "ept_b1", "EVAL_SPLIT": "validation", "EVAL_BATCH_SIZE": 64}
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("jax_prompts.scoring.evaluator.answered_texts", stopped)
        t5x_eval(tmp_path / "eval", files, **settings)
    found = t5x_eval(tmp_path / "eval", files, **settings, EVAL_ROLE="test")
    assert found == t5x_eval(tmp_path / "fresh", files, **settings, EVAL_ROLE="test")
    predictions = [
        next((tmp_path / name / "predictions").iterdir()).read_text() for name in ("eval", "fresh")
    ]
    assert predictions[0] == predictions[1]


def test_caches_of_all_tasks_of_a_job_are_filled(tmp_path, capsys):
    files = "models/micro", "recipes/micro", "runs/eval"
    settings = {
        "PROMPT_FILES": {"micro_reviews": (), "micro_world": ()},
        "MODEL_DIR": tmp_path / "never",
        "CACHE_DIR": tmp_path / "cache",
        "EVAL_SPLIT": "validation[:8]",
        "MIXTURE_OR_TASK_NAME": "quickstart_reviews",
        "TASK_FEATURE_LENGTHS": {"inputs": 48, "targets": 4},
    }
    flags = [
        *(f"--gin_file=gin_configs/{file}.gin" for file in files),
        *(f"--gin.{name}={value}" for name, value in settings.items()),
    ]
    main(["cache", *flags])
    caches = json.loads(capsys.readouterr().out.splitlines()[-1])["caches"]
    assert [cache["task"] for cache in caches] == ["micro_reviews", "micro_world"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("{}", ["PROMPT_FILES", "name tasks"]),
        ("('none/prompt-*.safetensors',)", ["none/prompt-*.safetensors", "names no file"]),
        ("('README.md', 'README.md')", ["README.md", "twice"]),
        ("{'quickstart_revews': ()}", ["quickstart_revews"]),
        ("{'quickstart_reviews': 'a'}", ["PROMPT_FILES", "super_glue_rte_v102"]),
    ],
)
def test_bad_files_are_one_clear_line(t5x_eval, tmp_path, capsys, files, words):
    with pytest.raises(SystemExit) as status:
        t5x_eval(tmp_path / "never", files)
    assert status.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("t5x eval: ") and all(word in last for word in words), last
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_an_evaluation_in_a_bucket_goes_on_where_it_was_stopped(
    prompts, t5x_eval, tmp_path, monkeypatch, capsys, google
):
    """The files of one in a directory; requests fail now and then, and it is stopped after its first batch."""
    url = f"{google_bucket(google, monkeypatch)}/eval"
    monkeypatch.setenv("JAX_PROMPTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "jax_prompts.scoring.evaluator.answered_texts", limited := _Limited(predict.answered_texts)
    )
    monkeypatch.setattr("jax_prompts.storage.remote._LONGEST_PAUSE", 0.01)
    files, asked, done = (f"{prompts}/{TASK}-0.safetensors",), [0], []

    def faults(method, path):
        asked[0] += "run.lock" not in path
        if asked[0] % 5 == 4:
            asked[0] += 1
            done.append((503, 429, "drop", "half")[len(done) % 4])
            return done[-1]
        return None

    google.faults = faults
    limited.left = 1
    with pytest.raises(SystemExit) as ended:
        t5x_eval(url, files)
    assert ended.value.code == 75 and f"what is answered is in {url}" in capsys.readouterr().err
    assert {name.partition("/")[0] for name in buckets.stored(url)} == {"answers"}
    limited.left = -1
    found = t5x_eval(url, files)
    google.faults = lambda method, path: None
    whole = t5x_eval(tmp_path / "whole", files)
    assert found == whole and len(done) > 3
    assert limited.rows == 24 + 24
    there = buckets.stored(url)
    assert sorted(there) == sorted(
        str(path.relative_to(tmp_path / "whole"))
        for path in (tmp_path / "whole").rglob("*")
        if path.is_file()
    )
    for name in there:
        assert buckets.content(f"{url}/{name}", 1 << 20) == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_evaluate_into_a_bucket(prompts, tmp_path, monkeypatch, google, compile_cache):
    """Each answers its part; process 0 writes what is one. The launcher is killed as soon as an answer is there."""
    url = f"{google_bucket(google, monkeypatch)}/eval"
    caches = {"JAX_PROMPTS_CACHE": str(tmp_path / "cache")}

    def together(place):
        settings = {
            "PROMPT_FILES": (f"{prompts}/{TASK}-0.safetensors", f"{prompts}/{TASK}-2.safetensors"),
            "EVAL_SPLIT": "validation[:200]",
            "EVAL_BATCH_SIZE": 16,
            "MODEL_DIR": place,
        }
        return launched(
            *(2, "eval", "--gin_file=gin_configs/quickstart.gin", "--gin_file=gin_configs/runs/eval.gin"),
            *(f"--gin.{name}={value}" for name, value in settings.items()),
            **{**compile_cache, **caches},
        )

    _, err = (run := together(tmp_path / "whole")).communicate()
    assert run.returncode == 0, err
    first = together(url)
    while first.poll() is None and not any(name.startswith("answers/") for name in buckets.stored(url)):
        time.sleep(0.05)
    first.kill()
    first.communicate()
    _, err = (second := together(url)).communicate()
    assert second.returncode == 0, err
    whole = {path for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    assert set(buckets.stored(url)) == {str(path.relative_to(tmp_path / "whole")) for path in whole}
    for path in whole:
        name = str(path.relative_to(tmp_path / "whole"))
        assert buckets.content(f"{url}/{name}", 1 << 20) == path.read_bytes(), name


class _Limited:
    """Answers, until as many batches as are `left` are answered."""

    def __init__(self, answer):
        self._answer, self.left, self.rows = answer, -1, 0

    def __call__(self, *args):
        for texts in self._answer(*args):
            yield texts
            self.rows += len(texts)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def test_buckets_that_cannot_be_are_named(prompts, t5x_eval, google, monkeypatch, capsys):
    google_bucket(google, monkeypatch)
    for place, words in [
        ("gs://none-of-this-name/eval", "there is no such bucket"),
        ("s3://bucket/eval", "at gs:// alone"),
    ]:
        with pytest.raises(SystemExit) as ended:
            t5x_eval(place, (f"{prompts}/{TASK}-0.safetensors",))
        last = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and place in last and words in last
