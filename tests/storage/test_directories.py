"""What a killed process left beside a cache."""

import os
import time

from jax_prompts.data.staging import staged


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    old, young = tmp_path / ".making-old", tmp_path / ".making-young"
    for left in (old, young):
        left.mkdir()
        (left / "tokens.arrow").write_bytes(b"part")
    yesterday = time.time() - 25 * 3600
    for path in (old / "tokens.arrow", old, young):
        os.utime(path, (yesterday, yesterday))
    with staged(tmp_path / "cache", lambda: False) as directory:
        (directory / "tokens.arrow").write_bytes(b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".making-young", "cache"]
