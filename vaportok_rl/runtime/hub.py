"""The Hugging Face hub: a folder up in one commit, a snapshot down, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, Unpack

from vaportok_rl.version import __version__

CARD_FILE = "README.md"
LIBRARY = "vaportok-rl"


class HubOptions(TypedDict, total=False):
    """Options of huggingface_hub for hub repositories; no effect on local sources."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


class PushOptions(TypedDict, total=False):
    """Options of a push to the hub, as huggingface_hub's: who may see it, as whom, where to, and why."""

    private: bool | None
    token: str | bool | None
    revision: str | None
    commit_message: str


def download(
    repo_id: str, files: Iterable[str], kind: str = "model", folder: Path | None = None, **hub: Unpack[HubOptions]
) -> Path:
    """Downloads files of a repository, or finds them in the cache.

    Args:
        repo_id: ``owner/name``.
        files: names or patterns.
        kind: ``"model"`` or ``"dataset"``.
        folder: where to; huggingface_hub's cache by default.
        hub: see `HubOptions`.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: the repository cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # As huggingface_hub's defaults: a keyword that is not given is not passed on.
    given: dict[str, Any] = dict(hub)
    given |= {} if kind == "model" else {"repo_type": kind}
    given |= {} if folder is None else {"local_dir": folder}
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(files), **given))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"Expected a folder or a reachable hub id, got {repo_id!r}, which is neither a folder here nor could be "
            f"downloaded ({type(error).__name__}); check the name and the network."
        ) from error


def upload(
    folder: Path, repo_id: str, files: Iterable[Path], card: str, kind: str = "model", **push: Unpack[PushOptions]
) -> str:
    """Uploads files and a card to a repository, which is created if it is missing, in one commit.

    Args:
        folder: of the files.
        repo_id: ``owner/name``.
        files: in the folder.
        card: the text of README.md.
        kind: ``"model"`` or ``"dataset"``.
        push: see `PushOptions`.

    Returns:
        The commit's address.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=push.get("token"), library_name=LIBRARY, library_version=__version__)
    repo_id = api.create_repo(repo_id, private=push.get("private"), repo_type=kind, exist_ok=True).repo_id
    operations = [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]
    operations.append(CommitOperationAdd(CARD_FILE, card.encode()))
    message = push.get("commit_message", f"Upload with {LIBRARY} {__version__}")
    done = api.create_commit(repo_id, operations, commit_message=message, revision=push.get("revision"), repo_type=kind)
    return str(done)


def front_matter(tags: Iterable[str]) -> str:
    """The head of a card, which the hub reads."""
    return "\n".join(["---", f"library_name: {LIBRARY}", "tags:", *(f"- {tag}" for tag in tags), "---"])
