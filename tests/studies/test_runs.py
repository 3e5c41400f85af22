"""Studies of what runs leave: whole runs, killed ones, older ones."""

import json

import numpy as np
import pytest
from study_files import prompt_file, run_directory

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.studies.convergence import convergence, first_within, score_curve
from jax_prompts.studies.norms import norms
from jax_prompts.studies.prompt_inputs import read_prompts, short_names
from jax_prompts.studies.rank import rank
from jax_prompts.studies.similarity import similarity

PROMPT_PD = np.diag([3.0, 4.0])


def evaluations(*scores, member=None, first=0, **more):
    """Lines of metrics/eval.jsonl, 10 steps apart."""
    whose = {} if member is None else {"member": member}
    return [
        {"step": first + 10 * i, "task": "a", "split": "validation", **whose, "accuracy": score, **more}
        for i, score in enumerate(scores)
    ]


def finished(*bests):
    members = [{"seed": 0, "best_metric": best, "best_step": 30, "file": "gone"} for best in bests]
    return {"task": "a", "metric": "accuracy", "last_step": 30, "members": members}


def test_names_tell_prompts_apart():
    assert short_names(["runs/a/prompt.safetensors", "runs/b/prompt.safetensors"]) == ["a", "b"]
    assert short_names(["x/a/prompt-0.safetensors", "x/b/prompt-0.safetensors"]) == [
        "a/prompt-0",
        "b/prompt-0",
    ]
    assert short_names(["/1/a/prompt.safetensors", "/2/a/prompt.safetensors"]) == ["1/a", "2/a"]
    assert short_names(["prompt.safetensors", "other.safetensors"]) == ["prompt", "other"]
    assert short_names([]) == []


def test_prompts_of_files_and_runs(tmp_path):
    file = prompt_file(tmp_path / "one.safetensors", PROMPT_PD, task="a")
    run = run_directory(tmp_path / "runs" / "x", prompt_PD=PROMPT_PD)
    assert [prompt.name for prompt in read_prompts([file, run])] == ["one", "x"]
    assert [prompt.name for prompt in read_prompts([str(tmp_path / "runs")])] == ["x"]
    with pytest.raises(ConfigError, match="named twice"):
        read_prompts([file, str(tmp_path / "." / "one.safetensors")])
    empty = run_directory(tmp_path / "none yet")
    with pytest.raises(ConfigError, match="holds no prompt yet"):
        read_prompts([empty])
    with pytest.raises(ConfigError, match="does not exist"):
        read_prompts([str(tmp_path / "nowhere")])
    (tmp_path / "bad.safetensors").write_bytes(b"no prompt")
    with pytest.raises(RunError, match="not a whole prompt file"):
        read_prompts([str(tmp_path / "bad.safetensors")])


def test_similarity_says_nothing_of_what_cannot_be_compared(tmp_path):
    files = [
        prompt_file(tmp_path / f"{number}.safetensors", prompt_PD, prompt_kind=kind)
        for number, (prompt_PD, kind) in enumerate(
            [(PROMPT_PD, "input"), (PROMPT_PD[:1], "input"), (np.ones((2, 3)), "input"), (PROMPT_PD, "deep")]
        )
    ]
    found = similarity(files)
    assert [each["mean_off_diagonal"] for each in found["prompts"]] == [0.0, None, 1.0, 0.0]
    assert found["between"]["mean_vectors"][0] == [1.0, 0.6, None, None]
    assert found["between"]["flattened"][0] == [1.0, None, None, None]


def test_sources_are_ranked_by_a_targets_mean_vector(tmp_path):
    """By hand: means (1, 1)/2 of the target, (1, 0), (0, -1) and (3, 3)."""
    target = run_directory(tmp_path / "short", prompt_PD=np.eye(2), metrics=[])
    sources = {"mnli": [[1.0, 0.0]], "qqp": [[0.0, -1.0]], "sst2": [[6.0, 0.0], [0.0, 6.0]]}
    files = [prompt_file(tmp_path / f"{task}.safetensors", x, task=task) for task, x in sources.items()]
    found = similarity(files, target)
    assert found["target"]["name"] == "short" and len(found["prompts"]) == 3
    half = round(0.5**0.5, 6)
    assert [(each["task"], each["mean_vectors"]) for each in found["ranking"]] == [
        ("sst2", 1.0), ("mnli", half), ("qqp", -half)
    ]  # fmt: skip
    assert [each["mean_of_pairs"] for each in found["ranking"]] == [0.5, 0.5, -0.5]
    assert "ranking" not in similarity(files)


@pytest.mark.parametrize(
    ("prompt_PD", "metadata", "words"),
    [
        (np.ones((2, 3)), {}, "target.safetensors has width 2 and .*other.safetensors 3"),
        (np.eye(2), {"model_fingerprint": "bbbb"}, r"base model aaaa \(t5\) and .*other.safetensors to bbbb"),
        (np.eye(2), {"prompt_kind": "deep"}, "of kind input and .*other.safetensors of kind deep"),
    ],
)
def test_sources_that_no_target_can_be_compared_with_are_named(tmp_path, prompt_PD, metadata, words):
    target = prompt_file(
        tmp_path / "target.safetensors", np.eye(2), model_fingerprint="aaaa", base_model="t5"
    )
    other = prompt_file(tmp_path / "other.safetensors", prompt_PD, **metadata)
    with pytest.raises(ConfigError, match=words):
        similarity([other], target)


def test_a_target_is_one_prompt_and_no_source(tmp_path):
    target = prompt_file(tmp_path / "target.safetensors", np.eye(2))
    with pytest.raises(ConfigError, match="is the target and among the others"):
        similarity([target], str(tmp_path / "." / "target.safetensors"))
    with pytest.raises(ConfigError, match="does not exist"):
        similarity([target], str(tmp_path / "absent"))
    for name in ("a", "b"):
        run_directory(tmp_path / "runs" / name, prompt_PD=np.eye(2))
    with pytest.raises(ConfigError, match="holds 2 prompts: name the file of one"):
        similarity([target], str(tmp_path / "runs"))


def test_rank_over_training(tmp_path):
    lines = [
        {"step": 0, "rank": 2, "entropy_rank": 1.9, "positive_diagonal": 2, "negative_diagonal": 0},
        {"step": 10, "rank": 2, "entropy_rank": "damaged", "positive_diagonal": 1, "negative_diagonal": 1},
        '{"step": 20, "rank": 1, "entr',  # killed
    ]
    probe = run_directory(tmp_path / "probe", prompt_PD=PROMPT_PD, prompt=lines)
    old = run_directory(tmp_path / "old", prompt_PD=np.ones((2, 2)))
    found = rank([probe, old])
    assert [each["rank"] for each in found["prompts"]] == [2, 1]
    assert found["training"][0]["members"] == [
        {
            "member": 0,
            "step": [0, 10],
            "rank": [2, 2],
            "entropy_rank": [1.9, None],
            "positive_diagonal": [2, 1],
            "negative_diagonal": [0, 1],
        }
    ]
    assert found["training"][1]["members"] == []


def test_norms_over_training_and_positions(tmp_path):
    train = [
        {"step": step, "member": member, "prompt_norm": step + member, "prompt_similarity": 0.5, "loss": 1.0}
        for step in (10, 20)
        for member in (0, 1)
    ]
    run = run_directory(tmp_path / "run", prompt_PD=PROMPT_PD, train=train, prompt=[{"step": 0, "norm": 9.0}])
    found = norms([run])
    (prompt,) = found["prompts"]
    assert (prompt["mean"], prompt["min"], prompt["max"], prompt["positions"]) == (3.5, 3.0, 4.0, [3.0, 4.0])
    assert [own["norm"] for own in found["training"][0]["members"]] == [[10, 20], [11, 21]]
    assert found["training"][0]["evaluated"] == [{"member": 0, "step": [0], "norm": [9.0]}]
    assert found["vocabulary"] is None


def test_the_first_score_that_is_near_enough():
    curve = [(10, 50.0), (20, 79.2), (30, 80.0)]
    assert first_within(curve, True, 80.0, 1.0) == (20, 79.2)
    assert first_within(curve, True, 80.0, 0.5) == (30, 80.0)
    assert first_within(curve, True, 90.0, 1.0) is None
    assert first_within([(10, 2.0), (20, 1.005)], False, 1.0, 1.0) == (20, 1.005)  # of a loss
    assert first_within([(10, -0.5), (20, -0.1)], True, -0.1, 1.0) == (20, -0.1)


def test_the_score_that_chooses():
    two = [*evaluations(0.0, 50.0, 60.0, f1=20.0), *evaluations(0.0, 90.0, 90.0, f1=None)]
    assert score_curve(two[:3], None) == ([(10, 35.0), (20, 40.0)], True)
    assert score_curve(two[:3], "accuracy") == ([(10, 50.0), (20, 60.0)], True)
    broken = [*two[:2], {**two[2], "accuracy": None}]  # a number that was not finite
    assert score_curve(broken, None) == ([(10, 35.0)], True)
    losses = [{"step": step, "task": "a", "loss": 3.0 - step} for step in (0, 1, 2)]
    assert score_curve(losses, None) == ([(1, 2.0), (2, 1.0)], False)
    assert score_curve([], None) == ([], True)


def test_convergence_of_seeds_runs_and_killed_runs(tmp_path):
    seconds = [{"step": step, "tuning_seconds": step / 10, "wall_seconds": step / 5} for step in (10, 20, 30)]
    lines = [
        *evaluations(0.0, 50.0, 80.0, 80.5, member=0),
        *evaluations(90.0, 90.0, 70.0, member=1, first=10),
    ]
    settings = "RANDOM_SEED = 0\nMODEL_DIR = 'x'\nLEARNING_RATE = 0.3\n"
    whole = run_directory(
        tmp_path / "whole", settings=settings, summary=finished(80.5, 90.0), eval=lines, seconds=seconds
    )
    other = settings.replace("= 0\n", "= 2\n").replace("'x'", "'y'")
    killed = run_directory(tmp_path / "killed", settings=other, eval=[*evaluations(0.0, 70.0), '{"step": 2'])
    slow = run_directory(tmp_path / "slow", settings=settings.replace("0.3", "0.1"))
    found = convergence([whole, killed, slow])
    rows = found["members"]
    assert [(row["run"], row["member"], row["finished"], row["best"]) for row in rows] == [
        ("whole", 0, True, 80.5), ("whole", 1, True, 90.0), ("killed", 0, False, 70.0), ("slow", 0, False, None),
    ]  # fmt: skip
    assert [row["own"]["step"] for row in rows] == [20, 10, 10, None]
    assert rows[0]["own"] == {"step": 20, "score": 80.0, "tuning_seconds": 2.0, "wall_seconds": 4.0}
    assert rows[2]["own"]["wall_seconds"] is None
    # Seeds and directories apart, the first two runs have the same settings: mean best 80.17, within 1 % from 79.37.
    assert [row["settings"] for row in rows] == [0, 0, 0, 1]
    assert [row["configuration"]["step"] for row in rows] == [20, 10, None, None]
    first, second = found["configurations"]
    assert first["best"]["mean"] == pytest.approx(80.1667, abs=1e-4)
    assert first["configuration"]["step"] == {"count": 2, "mean": 15, "deviation": pytest.approx(50**0.5)}
    assert second["own"]["step"] == {"count": 0, "mean": None, "deviation": None}
    json.dumps(found, allow_nan=False)


def test_members_of_a_sweep_have_settings_of_their_own(tmp_path):
    summary = finished(80.0, 80.0, 80.0)
    values = [(0.1, 0), (0.1, 1), (0.3, 0)]
    for own, (rate, seed) in zip(summary["members"], values, strict=True):
        own["settings"] = {"LEARNING_RATE": rate, "RANDOM_SEED": seed}
    lines = [line for member in range(3) for line in evaluations(80.0, member=member, first=10)]
    sweep = run_directory(
        tmp_path / "sweep", settings="SWEEP = {'LEARNING_RATE': (0.1, 0.3)}\n", summary=summary, eval=lines
    )
    assert [row["settings"] for row in convergence([sweep])["members"]] == [0, 0, 1]


@pytest.mark.parametrize("within", [-1.0, 100.0, float("nan")])
def test_a_percentage_that_is_none(tmp_path, within):
    with pytest.raises(ConfigError, match="--within"):
        convergence([run_directory(tmp_path / "run")], within)


@pytest.mark.parametrize("line", ["[1]", "{}", '{"step": null}', '{"step": 1, "member": "a"}'])
def test_a_line_that_no_run_wrote(tmp_path, line):
    bad = run_directory(tmp_path / "bad", prompt_PD=PROMPT_PD, eval=[f"{line}\n"], prompt=[f"{line}\n"])
    for study in (convergence, rank):
        with pytest.raises(RunError, match="no run has written"):
            study([bad])


@pytest.mark.parametrize("damaged", ["eval", "summary", "prompt"])
def test_a_damaged_run_is_left_out_and_said(tmp_path, capsys, damaged):
    prompt_PD = np.eye(2, 3)
    good = run_directory(
        tmp_path / "good", eval=evaluations(50.0, 80.0), summary=finished(80.0), prompt_PD=prompt_PD
    )
    bad = run_directory(
        tmp_path / "bad", eval=evaluations(50.0, 80.0), summary=finished(80.0), prompt_PD=prompt_PD
    )
    files = {"eval": "metrics/eval.jsonl", "summary": "summary.json", "prompt": "prompt.safetensors"}
    (tmp_path / "bad" / files[damaged]).write_text("{\n")
    study = rank if damaged == "prompt" else convergence
    study([good, bad])
    assert f"left out: {tmp_path / 'bad'}" in capsys.readouterr().err
    with pytest.raises(RunError):
        study([bad])
