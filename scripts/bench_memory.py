"""Peak memory of a training step in several settings, each in a process of its own.

    python scripts/bench_memory.py
    python scripts/bench_memory.py "" "--groups 1" "--dtype bfloat16" "--members 4" "--methods residual"

Each is what is appended to the arguments of `bench_step.py`, "" what that does by itself. Beside each peak stands its
limit, the bytes of weights, which are there in any case. On accelerators the peak is that of the device's memory.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

SETTINGS = ["", "--groups 1", "--dropout 0", "--dtype bfloat16", "--members 4 --inputs 64 --prompt 20"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", default=SETTINGS)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    args = parser.parse_args()

    reports = {}
    for setting in args.settings:
        script = pathlib.Path(__file__).with_name("bench_step.py")
        command = [sys.executable, script, "--json", "--steps", "2", *setting.split()]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        reports[setting] = {
            "peak_gigabytes": found["peak_device_gigabytes"] or found["peak_rss_gigabytes"],
            "weights_gigabytes": found["weights_gigabytes"],
        }
        if not args.json:
            peak, weights = reports[setting].values()
            print(f"{setting or 'as it is'}: peak {peak:.2f} GB, of which {weights:.2f} are weights")
    if args.json:
        print(json.dumps(reports))


if __name__ == "__main__":
    main()
