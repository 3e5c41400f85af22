"""Checks that TFDS can have a data set; its own attempts take minutes to fail without a network."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import seqio

from jax_prompts.errors import RunError

SECONDS = 10.0  # for all hosts together, name look-up included


def check_tfds_access(task: seqio.Task, split: str) -> None:
    """Looks for TFDS's data on disk, and else for the hosts it is downloaded from.

    Raises:
      RunError: neither is there; says what to download and where to put it.
    """
    source = task.source
    if not isinstance(source, seqio.TfdsDataSource):
        return
    builder = source.tfds_dataset.builder
    if "://" in str(builder.data_path) or builder.data_path.exists():
        return
    hosts = sorted({"/".join(url.split("/")[:3]) for url in builder.url_infos or ()})
    if not hosts or _any_answers(hosts):
        return
    wanted = (
        f"put {source.wanted(split)} into a directory and set DATA_DIR to it"
        if hasattr(source, "wanted")
        else ""
    )
    raise RunError(
        f"{task.name} needs TFDS's {source.tfds_dataset.name}, which is not in {builder.data_dir_root}, and "
        f"{' and '.join(hosts)} cannot be reached: {wanted or 'set --tfds_data_dir to where it is'}"
    )


def _any_answers(hosts: list[str]) -> bool:
    answered = threading.Event()

    def ask(host: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it speaks
        except (OSError, ValueError):
            return
        answered.set()

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    # All may have failed, or one have answered, long before the time is over.
    end = time.monotonic() + SECONDS
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end and not answered.wait(0.1):
        pass
    return answered.is_set()
