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


def test_a_flush_leaves_events_on_disk(tmp_path):
    kept = records.Records(str(tmp_path), "A = 1\n")
    kept.truncate(-1)
    (events,) = (tmp_path / "tensorboard").iterdir()
    before = events.stat().st_size
    kept.scalars("train", 1, {"loss": 2.5})
    kept.flush()
    assert events.stat().st_size > before
    kept.close()
