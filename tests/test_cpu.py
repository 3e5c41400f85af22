"""The program starts itself again in huge pages, once, as it was called."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from jax_prompts.cpu import restart_with_huge_pages
print("started", flush=True)
restart_with_huge_pages()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
@pytest.mark.parametrize(
    ("before", "starts", "after"),
    [
        ({}, 2, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, 2, "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, 1, "glibc.malloc.hugetlb=0"),
    ],
)
def test_restarts_once_with_its_arguments(before, starts, after):
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", "--gin.A='b c'"],
        env=env | before,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["started"] * starts + [f"{process.pid} {after} train --gin.A='b c'"]
