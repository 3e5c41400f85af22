"""What every worker of `peer.py` does: answers one call a line, until there are no more."""

import json
import resource
import sys
import time


def serve(**functions):
    """Calls them as they are asked for: `[name, arguments]` a line; the answer tells the seconds and the peak."""
    print("{}", flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        begun = time.perf_counter()
        answer = functions[name](**arguments)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({**answer, "seconds": seconds, "peak_rss_gigabytes": peak}), flush=True)
