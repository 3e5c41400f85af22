"""Upstream T5X beside the project: T5X_PEERS names a folder with its sources and an environment that has both."""

import os
import pathlib
import site
import sys
import warnings

import pytest


@pytest.fixture(scope="session")
def peers():
    """That folder, upstream importable from here on; tests of it are skipped where there is none."""
    if "T5X_PEERS" not in os.environ:
        pytest.skip("upstream T5X is not here: set T5X_PEERS to a folder with it (docs/upstream_t5x.md)")
    folder = pathlib.Path(os.environ["T5X_PEERS"])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(str(folder / "venv" / "lib" / version / "site-packages"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import t5x.train  # noqa: F401
    return folder
