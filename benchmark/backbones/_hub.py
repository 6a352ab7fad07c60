"""Weight files from the Hugging Face cache or hub, with errors that come within seconds and say what to do."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import DataMissing
from benchmark.files import switched_on

TIMEOUT = 5.0  # seconds until a silent network counts as none


def fetch(name: str, repository: str, files: Sequence[str], *, offline: bool) -> Path:
    """Returns a weight file: from the Hugging Face cache, else from the hub.

    Args:
        name: Of the backbone, for messages.
        repository: On the hub, ``timm/vit_base_patch16_224.augreg_in21k``.
        files: Names under which the file may be there, best first.
        offline: Never asks the network.

    Raises:
        DataMissing: It is in neither; within seconds, with what to fetch and where to put it.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    forbidden = offline or switched_on("BENCH_OFFLINE", "HF_HUB_OFFLINE")
    where = (
        f"fetch {files[0]} of https://huggingface.co/{repository} and give it with --weights FILE, "
        f"or run once with network: it is kept in {HF_HUB_CACHE}"
    )
    if forbidden:
        raise DataMissing(f"weights of {name} are not on this machine, and downloads are off", hint=where)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    for file in files:
        try:
            size = _size(f"{endpoint}/{repository}/resolve/main/{file}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                continue
            raise DataMissing(f"weights of {name}: {endpoint} answers {error.code}", hint=where) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise DataMissing(
                f"weights of {name} are not on this machine, and {endpoint} cannot be reached ({reason})",
                hint=where,
            ) from error
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the hub's client raises many kinds, its HTTP library's among them
            big = f" ({size / 2**20:.0f} MiB)" if size else ""
            raise DataMissing(f"weights of {name}: download of {file}{big} failed: {error}", hint=where) from error
    raise DataMissing(f"weights of {name}: {repository} holds none of {', '.join(files)}", hint=where)


def snapshot(name: str, repository: str, patterns: Sequence[str], *, offline: bool) -> Path:
    """Returns the folder of a repository with the files that fit the patterns: from the cache, else from the hub.

    Args:
        name: Of the backbone, for messages.
        repository: On the hub, ``FacebookAI/roberta-large``.
        patterns: Of files, as `fnmatch` reads them.
        offline: Never asks the network.

    Raises:
        DataMissing: As `fetch`; also where the repository has no ``*.safetensors``.
    """
    from huggingface_hub import snapshot_download

    first = fetch(name, repository, ["config.json"], offline=offline)
    if not any(first.parent.glob("*.safetensors")):
        fetch(name, repository, ["model.safetensors", "model.safetensors.index.json"], offline=offline)
    forbidden = offline or switched_on("BENCH_OFFLINE", "HF_HUB_OFFLINE")
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns), local_files_only=forbidden))
    except Exception as error:  # see `fetch`
        raise DataMissing(
            f"{name}: its files could not be fetched: {error}",
            hint="run once with network, or give a folder: hf:FOLDER",
        ) from error


def _size(url: str) -> int:
    """Asks for a file's size in bytes; 0 when the server does not say.

    One try. It runs in a thread because a name that resolves slowly, or to many silent addresses,
    would wait for each of them.

    Raises:
        OSError: No answer in time, or an error.
    """
    answers: list[int | OSError] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                size = answer.headers.get("X-Linked-Size") or answer.headers.get("Content-Length") or 0
                answers.append(int(size))
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            answers.append(error)
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * TIMEOUT)
    if not answers:
        raise TimeoutError(f"no answer within {2 * TIMEOUT:g} s")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]
