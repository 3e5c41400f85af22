"""Accelerators: what one holds and how fast it is, and the slices of TPUs that the compiler can be asked about.

Sources: Cloud TPU's pages of each version (peak rate in bfloat16, memory bandwidth, links); for the memory that a
program may use, and so for `hbm`, the TPU compiler's own limit, which is a little below what is sold. Clocks are
those at which a chip's matrix units give the peak rate. H200: NVIDIA's data sheet for memory and links; its matrix
rate is taken as 790 TFLOP/s, which large products reach, in place of the data sheet's 989.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import jax

from jax_prompts.config import ConfigError, RunError, nearest


@dataclasses.dataclass(frozen=True)
class Chip:
    """Rates are per second.

    Attributes:
      hbm: bytes of memory that programs may use.
      flops: bfloat16 matrix rate.
      bandwidth: bytes to and from its memory.
      ring: bytes that it sends when a group passes arrays round a ring, both ways where links allow it.
      clock: cycles, for the TPU compiler's estimates.
    """

    hbm: int
    flops: float
    bandwidth: float
    ring: float
    clock: float | None = None


GIB = 1 << 30
CHIPS = {  # by the name that JAX gives the device
    "TPU v4": Chip(int(30.75 * GIB), 275e12, 1.2e12, 90e9, 1.05e9),
    "TPU v5 lite": Chip(int(15.75 * GIB), 197e12, 0.819e12, 90e9, 1.5e9),
    "TPU v5": Chip(int(95.74 * GIB), 459e12, 2.765e12, 180e9, 1.75e9),
    "TPU v6 lite": Chip(int(31.25 * GIB), 918e12, 1.64e12, 180e9, 1.75e9),
    "NVIDIA H200": Chip(141 * 10**9, 790e12, 4.8e12, 450e9),
}

# Chips along the sides of a slice, by version.
_KNOWN = (
    (("v4", "v5p"), "1x1x1 2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16"),
    (("v5e", "v6e"), "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
)
TOPOLOGIES = [
    f"{version}:{side}" for versions, sides in _KNOWN for version in versions for side in sides.split()
]


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The chips of a TPU slice, for compiling alone: one device each, no TPU needed.

    Raises:
      ConfigError: no slice has that name; the nearest ones are offered.
      RunError: libtpu, the TPU's compiler, is not installed or does not start.
    """
    if name not in TOPOLOGIES:
        known = "; ".join(f"{' and '.join(versions)}: {sides}" for versions, sides in _KNOWN)
        raise ConfigError(
            f"--topology={name} is unknown to the compiler; did you mean {nearest(name, TOPOLOGIES)}? Known are {known}"
        )
    # libtpu looks for the machine it runs on, in vain, keeps logs, and is meant for one process at a time.
    for variable, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),  # any known one; the topology below counts
        ("TPU_LOG_DIR", "disabled"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    version, _, sides = name.partition(":")
    across, along = (int(side) for side in sides.split("x")[:2])
    # Both cores of a v4 as one device, as they are by themselves on later chips.
    settings = {"chip_config_name": "megacore"} if version == "v4" else {}
    host = (min(across, 2), min(along, 2), 1)
    try:
        found = topologies.get_topology_desc(name, "tpu", chips_per_host_bounds=host, **settings)
    except Exception as error:
        reason = str(error).splitlines()[0]
        remedy = "; pip install 'jax-prompts[tpu]'" if "not installed" in reason else ""
        raise RunError(f"the TPU compiler does not start: {reason}{remedy}") from error
    return found.devices


def memory_of(device: jax.Device, devices_here: int) -> int:
    """Bytes that a program may use on a device: by the table, the device's word, or a share of the machine's."""
    if device.platform == "tpu" and device.device_kind in CHIPS:
        return CHIPS[device.device_kind].hbm
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices_here
    return device.memory_stats()["bytes_limit"]
