"""What a cell gets of the run that trained it beside others."""

import pathlib

from small_suite import expanded

from jax_prompts.storage import files, json_text
from jax_prompts.suites.cell_files import hand_out


def test_a_cell_has_its_own_row_in_tensorboard(tmp_path):
    _, cells = expanded(tmp_path)
    group, pair = tmp_path / "suite" / "groups" / "some", cells[:2]
    members = [
        {
            "seed": seed,
            "best_metric": 70.0 + seed,
            "best_step": 10,
            "file": str(group / f"prompt-{seed}.safetensors"),
        }
        for seed in (0, 1)
    ]
    shared = ("tuned_parameters", "examples_per_second", "wall_seconds", "checkpoint_bytes", "last_step")
    summary = {"members": members, **dict.fromkeys(shared, 8)}

    def trained():
        for member in (0, 1):
            files.write(group / f"prompt-{member}.safetensors", "a prompt")
            files.write(group / "tensorboard" / f"member-{member}" / "events", f"of member {member}")
        files.write(group / "metrics" / "seconds.jsonl", '{"step": 10, "tuning_seconds": 8.0}\n')
        prompts = [{"step": step, "member": member, "rank": member} for step in (0, 10) for member in (0, 1)]
        files.write(group / "metrics" / "prompt.jsonl", "".join(json_text.dumps(x) + "\n" for x in prompts))
        hand_out(summary, str(group), pair)

    def events(directory):
        found = (directory / "tensorboard").rglob("events")
        return {str(file.parent.relative_to(directory)): file.read_text() for file in found}

    trained()
    of_cells = [{"tensorboard/hparams": f"of member {member}"} for member in (0, 1)]
    assert [events(pathlib.Path(cell.address)) for cell in pair] == of_cells
    assert events(group) == {}  # no row twice
    hand_out(summary, str(group), pair)  # killed before it was done, and gone on with
    assert [events(pathlib.Path(cell.address)) for cell in pair] == of_cells
    trained()  # made longer
    assert [events(pathlib.Path(cell.address)) for cell in pair] == of_cells
    assert (
        json_text.loads((pathlib.Path(pair[1].address) / "summary.json").read_text())["best_metric"] == 71.0
    )

    def lines(name):
        text = (pathlib.Path(pair[1].address) / "metrics" / f"{name}.jsonl").read_text()
        return [json_text.loads(line) for line in text.splitlines()]

    assert lines("seconds") == [{"step": 10, "tuning_seconds": 4.0}]  # half of what two took together
    assert lines("prompt") == [{"step": step, "rank": 1} for step in (0, 10)]
