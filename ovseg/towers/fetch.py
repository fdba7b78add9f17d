"""Files of published weights: from the caches (OpenAI's own and the hub's) or the network."""

import logging
import os
from pathlib import Path

import open_clip
from huggingface_hub import hf_hub_download, try_to_load_from_cache

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def fetch_record(record: dict, name: str, offline: bool | None) -> Path:
    """The file of one open_clip record.

    Raises:
        FileNotFoundError: it is not here and cannot be fetched, with what to type on a connected machine.
    """
    cached = Path("~/.cache/clip").expanduser() / Path(record.get("url") or "none").name
    if cached.is_file():
        return cached
    if record.get("hf_hub"):
        repo, _, file = record["hf_hub"].rpartition("/")
        files = (file,) if file else HUB_FILES
        for candidate in files[:-1]:
            try:
                return hub_file(repo, candidate, name, offline)
            except FileNotFoundError:
                continue
        return hub_file(repo, files[-1], name, offline)
    if not is_offline(offline):
        try:
            return Path(open_clip.download_pretrained(record, prefer_hf_hub=False))
        except Exception as error:
            logging.getLogger("ovseg").debug("download failed: %s", error)
    raise FileNotFoundError(
        f"the weights {name} are not on this machine: {cached.name} was looked for in {cached.parent} and could not be "
        f"fetched. On a connected machine fetch {record['url']}, copy the file here and pass --weights {cached.name}. "
        "'--weights tiny' works offline at once."
    )


def is_offline(offline: bool | None) -> bool:
    """Whether the network may not be asked; None lets OVSEG_OFFLINE and HF_HUB_OFFLINE decide."""
    if offline is not None:
        return offline
    return any(
        os.environ.get(name, "0").lower() in ("1", "true", "yes", "on") for name in ("OVSEG_OFFLINE", "HF_HUB_OFFLINE")
    )


def hub_file(repo: str, file: str, name: str, offline: bool | None) -> Path:
    """One file of a hub repository.

    Raises:
        FileNotFoundError: it is not here and cannot be fetched.  The advice is the whole folder, named after the
            repository, since a file alone does not tell its activation and statistics.
    """
    cached = try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return Path(cached)
    reason = "offline mode is on"
    if not is_offline(offline):
        try:
            return Path(hf_hub_download(repo, file))
        except Exception as error:  # the hub's client has a dozen exception types for "it could not be had"
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = repo.rpartition("/")[2]
    raise FileNotFoundError(
        f"the weights {name} are not on this machine: {file} of {repo} was looked for in {HF_HUB_CACHE} and could not "
        f"be fetched ({reason}). On a connected machine type `hf download {repo} --local-dir {folder}`, copy that "
        f"folder here and pass --weights path/to/{folder}. '--weights tiny' works offline at once."
    )
