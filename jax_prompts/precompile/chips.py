"""Accelerators: the memory and the rates of one, and the slices of TPUs that the compiler can be asked about.

Sources: Cloud TPU's pages of each version (peak rate in bfloat16, memory bandwidth, links); for the memory that a
program may use, and so for `hbm`, the TPU compiler's own limit, which is a little below what is sold. Clocks are
those at which a chip's matrix units give the peak rate. H200: NVIDIA's data sheet for memory and links; its matrix
rate is taken as 790 TFLOP/s, which large products reach, in place of the data sheet's 989.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jax_prompts.errors import ConfigError, RunError, first_line, nearest

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """Rates are per second.

    Attributes:
      hbm: bytes of memory that programs may use.
      flops: bfloat16 matrix rate.
      bandwidth: bytes to and from its memory.
      ring: bytes that it sends when a group passes arrays round a ring of links, both ways.
      flat: chips lie in a plane, and a link closes a side of 16; else in a block, where links close all sides if
        each is a multiple of 4, and none otherwise.
      clock: cycles, for the TPU compiler's estimates.
    """

    hbm: int
    flops: float
    bandwidth: float
    ring: float
    clock: float | None = None
    flat: bool = False


GIB = 1 << 30
CHIPS = {  # by the name that JAX gives the device
    "TPU v4": Chip(int(30.75 * GIB), 275e12, 1.2e12, 90e9, 1.05e9),
    "TPU v5 lite": Chip(int(15.75 * GIB), 197e12, 0.819e12, 90e9, 1.5e9, flat=True),
    "TPU v5": Chip(int(95.74 * GIB), 459e12, 2.765e12, 180e9, 1.75e9),
    "TPU v6 lite": Chip(int(31.25 * GIB), 918e12, 1.64e12, 180e9, 1.75e9, flat=True),
    "TPU7x": Chip(int(94.75 * GIB), 1153.5e12, 3.69e12, 90e9, 2.2e9),  # one of a chip's two cores, half of it
    "NVIDIA H200": Chip(141 * 10**9, 790e12, 4.8e12, 450e9),
}

CHIPS |= {"TPU v5e": CHIPS["TPU v5 lite"], "TPU v5p": CHIPS["TPU v5"], "TPU v6e": CHIPS["TPU v6 lite"]}

# Sides of a slice, and chips of a pod, of which it is a part.
_PODS = {"v4": (3, 4096), "v5p": (3, 8960), "v5e": (2, 256), "v6e": (2, 256), "tpu7x": (3, 9216)}
_SIDES = {  # of usual slices
    2: "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16",
    3: "1x1x1 2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16",
}
USUAL = [f"{version}:{sides}" for version, (axes, _) in _PODS.items() for sides in _SIDES[axes].split()]


def check_topology(name: str) -> None:
    """Checks that a slice can be asked for, before JAX is imported.

    Raises:
      ConfigError: a name that is no slice; what may be meant is offered.
      RunError: $TPU_LIBRARY_PATH names no file (JAX warns of it when it is imported, and goes on).
    """
    library = os.environ.get("TPU_LIBRARY_PATH")
    if library is not None and not os.path.isfile(library):
        raise RunError(f"TPU_LIBRARY_PATH={library} is no file: set it to the path of libtpu.so, or unset it")
    version, sides = _split(name)
    axes, most = _PODS.get(version, (0, 0))
    if len(sides) != axes or not 0 < math.prod(sides) <= most:
        raise _no_slice(name)


def _split(name: str) -> tuple[str, list[int]]:
    """`v5e:4x4` as version and chips along each side; of anything else no sides."""
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    return (found[1], [int(side) for side in found[2].split("x")]) if found else (name, [0])


def _no_slice(name: str) -> ConfigError:
    """Error that says what to write in place of a name that no slice has."""
    lower = name.lower()
    if re.match(r"cpu|gpu|cuda|nvidia|rocm|local|[abhl]\d+", lower):
        return ConfigError(
            f"--topology={name} is no TPU slice: leave --topology out, on the machine that has it"
        )
    remedy = f"did you mean {nearest(name, USUAL)}?" if ":" in name else f"VERSION is {', '.join(_PODS)}"
    if kind := re.fullmatch(r"(v4|v5p|v5e|v5litepod|v6e)-(\d+)", lower):
        version = kind[1].replace("litepod", "e")
        chips = int(kind[2]) // (1 if _PODS[version][0] == 2 else 2)  # names of v4 and v5p count cores
        same = [
            usual
            for usual in USUAL
            if usual.startswith(f"{version}:") and math.prod(_split(usual)[1]) == chips
        ]
        remedy = f"did you mean {same[0]}?" if same else f"{version} has no usual slice of {chips} chips"
    return ConfigError(f"--topology={name} is no TPU slice, VERSION:AxB or VERSION:AxBxC; {remedy}")


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The chips of a TPU slice, for compiling alone: one device each (TPU7x: two), no TPU needed.

    Raises:
      ConfigError: no slice has that name; the nearest ones are offered.
      RunError: libtpu, the TPU's compiler, is not installed or does not start.
    """
    check_topology(name)
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

    version, (across, along, *_) = _split(name)
    # Both cores of a v4 as one device, as they are by themselves on later chips.
    settings = {"chip_config_name": "megacore"} if version == "v4" else {}
    host = (min(across, 2), min(along, 2), 1)
    try:
        found = topologies.get_topology_desc(name, "tpu", chips_per_host_bounds=host, **settings)
    except Exception as error:
        reason = first_line(error)
        if reason.startswith("INVALID_ARGUMENT"):
            raise _no_slice(name) from error
        remedy = "; in the checkout: pip install -e '.[tpu]'" if "not installed" in reason else ""
        raise RunError(f"the TPU compiler does not start: {reason}{remedy}") from error
    return found.devices


def open_lines(devices: Sequence[jax.Device]) -> Callable[[Sequence[int]], bool]:
    """Function that says whether a group, by its places among `devices`, is a line that no link closes to a ring.

    Such a group takes twice as long: everything passes the middle, and half of what a ring has crosses there. A
    group in a plane or a block has a ring within it. Chips with no coordinates (GPU, CPU) reach all others alike.
    """
    chip = CHIPS.get(devices[0].device_kind)
    if chip is None or not hasattr(devices[0], "coords"):
        return lambda group: False
    coordinates = np.array([device.coords for device in devices])
    sides = np.ptp(coordinates, axis=0) + 1
    closed = sides == 16 if chip.flat else np.full(sides.shape, np.all(sides % 4 == 0))

    def is_open_line(group: Sequence[int]) -> bool:
        extents = np.ptp(coordinates[list(group)], axis=0) + 1
        (along,) = np.nonzero(extents > 1)
        return len(along) == 1 and not (closed[along[0]] and extents[along[0]] == sides[along[0]])

    return is_open_line


def memory_of(device: jax.Device, devices_here: int) -> int:
    """Bytes that a program may use on a device: by the table, the device's word, or a share of the machine's."""
    if device.platform == "tpu" and device.device_kind in CHIPS:
        return CHIPS[device.device_kind].hbm
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices_here
    return device.memory_stats()["bytes_limit"]
