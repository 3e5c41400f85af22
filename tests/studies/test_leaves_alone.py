"""What reads prompt files, given a file of leaves alone and one of leaves beside a prompt."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.cli.inspection import describe
from jax_prompts.errors import ConfigError, SettingWarning
from jax_prompts.main import main
from jax_prompts.prompts import FromFile, FromFiles, PromptMetadata, save_prompt
from jax_prompts.prompts.init import Base
from jax_prompts.prompts.store import PromptStore
from jax_prompts.report import heat_maps
from jax_prompts.studies.prompt_inputs import read_prompts
from jax_prompts.studies.rank import rank
from jax_prompts.studies.similarity import similarity
from jax_prompts.studies.transfer import check_comparable

PROMPT_PD = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
LEAVES = {"encoder/layers_0/mlp/wo/scale": np.ones(6), "encoder/layers_0/mlp/wo/bias": np.ones(6)}
BASE = Base(jnp.zeros((9, 6)))


@pytest.fixture
def files(tmp_path):
    """(leaves alone, both)."""
    found = []
    for name, prompt_PD, method in (
        ("alone", np.zeros((0, 0)), "BitFit"),
        ("both", PROMPT_PD, "PromptTuning + BitFit"),
    ):
        found.append(str(tmp_path / f"{name}.safetensors"))
        save_prompt(found[-1], prompt_PD, PromptMetadata(method=method, task="rte"), LEAVES)
    return found


def test_inspection_lists_leaves(files):
    alone, both = (describe(file) for file in files)
    assert (alone["kind"], alone["parameters"]) == ("leaves inside the model", 12)
    assert "length" not in alone and "row_norm" not in alone
    assert (both["kind"], both["parameters"], both["length"]) == ("prompt", 12 + 24, 4)
    for each in (alone, both):
        assert each["leaves"] == {path: [6] for path in LEAVES}
        assert "NaN" not in json.dumps(each)


def test_a_store_counts_them(files, tmp_path, capsys):
    alone, both = files
    main(["store", "add", str(tmp_path / "s"), f"alone={alone}", f"both={both}"])
    capsys.readouterr()
    main(["store", "list", str(tmp_path / "s")])
    out, err = capsys.readouterr()
    rows = json.loads(out.splitlines()[-1])["prompts"]
    assert [(row["name"], row["length"], row["leaves"]) for row in rows] == [
        ("alone", 0, 12),
        ("both", 4, 12),
    ]
    assert "0 x 0" not in err and "4 x 6" in err
    assert PromptStore(tmp_path / "s").verify().whole == ("alone", "both")


def test_an_entry_of_an_earlier_version_is_read(files, tmp_path):
    store = PromptStore(tmp_path / "s")
    save_prompt(tmp_path / "plain", PROMPT_PD, PromptMetadata(method="PromptTuning"))
    store.add("plain", tmp_path / "plain")
    entry = json.loads((tmp_path / "s" / "plain.json").read_text())
    del entry["leaves"]
    (tmp_path / "s" / "plain.json").write_text(json.dumps(entry))
    assert store.list()[0].leaves == 0 and store.verify().whole == ("plain",)


def test_studies_of_vectors_leave_them_out(files, capsys):
    alone, both = files
    for study in (similarity, rank):
        with pytest.raises(ConfigError, match=r"alone.safetensors holds leaves inside the model \(BitFit\)"):
            study([alone])
        assert [prompt["file"] for prompt in study([alone, both])["prompts"]] == [both]
        assert f"left out: {alone} holds" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="holds leaves inside the model"):
        similarity([both], target=alone)
    every = read_prompts(files, leaves_alone=True)
    assert [len(each.prompt_PD) for each in every] == [0, 4]
    check_comparable(every)


def test_a_report_draws_the_others(files, tmp_path):
    problems: list[str] = []
    assert heat_maps.section([tmp_path / "alone.safetensors"], problems) is None
    section = heat_maps.section([tmp_path / f"{name}.safetensors" for name in ("alone", "both")], problems)
    assert section is not None and len(section.parts[0].views) == 1 and problems == []


def test_a_prompt_starts_from_a_prompt(files):
    alone, both = files
    for initializer in (FromFile(alone), FromFiles((alone, both))):
        with pytest.raises(ConfigError, match=f"{alone} (holds leaves inside|has 0 prompt tokens)"):
            initializer.table_init(BASE)
    with pytest.raises(ConfigError, match=f"{both} holds 2 leaves inside the model"):
        FromFiles((both, alone)).table_init(BASE)
    with pytest.warns(SettingWarning, match="2 leaves inside the model, too, which are left out"):
        init = FromFile(both).table_init(BASE)
    np.testing.assert_array_equal(init(jax.random.key(0), (4, 6), jnp.float32), PROMPT_PD)
    save_prompt(
        both, PROMPT_PD, PromptMetadata(method="PromptTuning"), {"classifier/kernel": np.ones((6, 2))}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FromFile(both).table_init(BASE)
