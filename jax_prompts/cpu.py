"""Makes the CPU backend fast: compiler options, and huge pages for its buffers."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

# XLA's defaults order thunks for concurrency and fuse elementwise work and reductions into library calls.
# On few cores the first only keeps more buffers alive, and the second is slower than XLA's own loops.
# Measured with scripts/bench_step.py, T5.1.1-small on 2 cores: 6.2 s and 4.9 GB -> 4.9 s and 2.8 GB a step.
_COMPILER_OPTIONS = {
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}
_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def compiler_options(mesh: jax.sharding.Mesh | None = None) -> dict[str, Any] | None:
    """Options for `jax.jit(compiler_options=...)` of a program over a whole model; None where the mesh's devices,
    or without one the machine's, are accelerators."""
    import jax

    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return _COMPILER_OPTIONS if platform == "cpu" else None


def restart_with_huge_pages() -> None:
    """Starts this process's program again, once, with malloc asking for huge pages (Linux; else does nothing).

    XLA's CPU backend takes a step's buffers, gigabytes, from malloc at every step, and touching them in
    pages of 4 KiB costs more than the softmaxes (measured as above: 4.9 s -> 4.3 s). glibc reads the
    setting when a process starts and has no call for it, hence the new program in the same process.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or "glibc.malloc.hugetlb" in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, _HUGE_PAGES]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
