"""What a run leaves in MODEL_DIR."""

import pytest

from jax_prompts import records
from jax_prompts.errors import ConfigError


def test_a_model_dir_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_SEEN_SECONDS", 0.0)
    records.Records(str(tmp_path), "A = 1\n")
    monkeypatch.setattr(records, "from_primary", lambda name, written: f"{written}0")
    with pytest.raises(ConfigError, match="all processes share"):
        records.Records(str(tmp_path), "A = 1\n")


def test_a_run_goes_on_with_other_partitions_but_not_with_other_settings(tmp_path):
    text = "PARTITIONS = {'fsdp': 2}\nSEED = 1\nBaseModel.partitions = %PARTITIONS\n"
    records.Records(str(tmp_path), text)
    records.Records(str(tmp_path), text.replace("'fsdp': 2", "'model': 4"))
    with pytest.raises(ConfigError, match="there 'SEED = 1', here 'SEED = 2'"):
        records.Records(str(tmp_path), text.replace("SEED = 1", "SEED = 2"))


def test_a_flush_leaves_events_on_disk(tmp_path):
    kept = records.Records(str(tmp_path), "A = 1\n")
    kept.truncate(-1)
    (events,) = (tmp_path / "tensorboard").iterdir()
    before = events.stat().st_size
    kept.scalars("train", 1, {"loss": 2.5})
    kept.flush()
    assert events.stat().st_size > before
    kept.close()
