"""Fetches files of data sets of the Hugging Face hub, by name."""

from __future__ import annotations

import functools
import logging
import pathlib
import re
import urllib.parse

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, first_line
from jax_prompts.storage.remote import within_limit

_URL = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/\w+/[^/]+|[^/]+))?/(.+)")


@functools.cache
def fetch(url: str) -> pathlib.Path:
    """The local copy of `hf://datasets/ORGANISATION/NAME[@REVISION]/PATH`, fetched once and then kept by the library.

    Raises:
      ConfigError: it is no such name, or the hub has no such data set, revision or file, or not for this user.
      RunError: no answer from the hub and nothing kept.
    """
    import huggingface_hub
    from huggingface_hub import errors

    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigError(f"{url}: write it as hf://datasets/ORGANISATION/NAME/FILE, or NAME@REVISION")
    name, revision, file = match[1], urllib.parse.unquote(match[2] or "") or None, match[3]
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)  # it remarks on every retry
    download = functools.partial(
        huggingface_hub.hf_hub_download, name, file, repo_type="dataset", revision=revision
    )
    try:
        address = huggingface_hub.hf_hub_url(name, file, repo_type="dataset", revision=revision)
        within_limit(lambda: huggingface_hub.get_hf_file_metadata(address))
        path = pathlib.Path(download())
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{url}: the hub asks who wants {name}: accept its terms on its page there, and set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{url}: the hub has no data set {name}, or a private one, which needs HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{url}: {name} has no revision {revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ConfigError(f"{url}: {name} has no file {file}") from error
    except Exception as error:  # whatever else the library and the network raise
        try:
            path = pathlib.Path(download(local_files_only=True))
        except Exception:
            reason = first_line(error)
            raise RunError(
                f"{url} could not be fetched ({reason}): give OwnTask a local copy of it"
            ) from error
    log(f"{url} is {path}")
    return path
