"""Files into a repository of Hugging Face, in one commit; through `huggingface_hub`, which reads HF_ENDPOINT."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from darkroom.formats.card import CARD_FILE

_LOG = logging.getLogger(__name__)
TOKEN_VARIABLE = "HF_TOKEN"
# Between tries where the Hub is busy and does not say how long.
_WAITS_S = (1, 2, 4, 8, 16)
_BUSY = (429, 500, 502, 503, 504)
# What the Hub puts into a repository itself.
_OF_THE_HUB = {".gitattributes"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Pushed:
    """What came of it.

    url: of the repository. commit: the SHA-1 of its newest one. is_new: whether that is this push's.
    others: files that lie there and are none of this push.
    """

    url: str
    commit: str
    is_new: bool
    others: tuple[str, ...]


def token_of_environment() -> str:
    """The token that HF_TOKEN holds. One that `hf auth login` has kept is not looked at.

    Raises:
        ValueError: there is none.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ValueError(
            f"{TOKEN_VARIABLE}: missing in the environment; it should hold a token of Hugging Face that may write"
        )
    return token


def check_repo_id(repo_id: str) -> None:
    """Refuse what is no OWNER/NAME.

    Raises:
        ValueError: says so.
    """
    from huggingface_hub.utils import validate_repo_id

    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id}: is no repository, which is written as OWNER/NAME")
    validate_repo_id(repo_id)


def push_files(
    repo_id: str, files: Mapping[str, Path], card: str, message: str, token: str, is_private: bool
) -> Pushed:
    """Send files and a card to a repository, which is made if it is not there. What it has is not sent again.

    Args:
        repo_id: OWNER/NAME.
        files: path there -> the file here.
        card: what README.md is to hold.
        message: of the commit.
        token: one that may write.
        is_private: whether the owner alone may see it.

    Raises:
        ValueError: the Hub refuses it or cannot be reached; the repository is there and is seen by others than
            `is_private` says.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    about = f"{repo_id} at {api.endpoint}"
    _patiently(about, lambda: api.create_repo(repo_id, private=is_private, exist_ok=True))
    before = _patiently(about, lambda: api.model_info(repo_id))
    if before.private is not None and before.private != is_private:
        raise ValueError(_seen_otherwise(repo_id, before.private))
    names = {*files, CARD_FILE}

    def commit() -> str:
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        operations.append(CommitOperationAdd(CARD_FILE, card.encode()))
        return str(api.create_commit(repo_id, operations, commit_message=message).oid)

    try:
        newest = _patiently(about, commit)
    except ValueError as error:
        raise ValueError(f"{error}\nnothing is lost: the same command goes on{_without_xet(error)}") from None
    there = {one.rfilename for one in before.siblings or []}
    others = tuple(sorted(there - names - _OF_THE_HUB))
    return Pushed(f"{api.endpoint}/{repo_id}", newest, newest != before.sha, others)


def _seen_otherwise(repo_id: str, is_private: bool) -> str:
    if is_private:
        return (
            f"{repo_id} is there and private: its settings on the Hub make it public, or leave out --public"
        )
    return f"{repo_id} is there and public: give --public, or name another repository"


def _patiently(about: str, ask: Callable[[], _T]) -> _T:
    """What the Hub answers; asked again after a while where it is busy.

    Raises:
        ValueError: says why there is no answer.
    """
    for wait_s in (*_WAITS_S, None):
        try:
            return ask()
        # Its own errors, those of the network and of hf_xet, and of its being told to stay offline.
        except Exception as error:
            status = _status(error)
            # A busy proxy's page, where huggingface_hub looks for JSON before it looks at the status.
            is_busy = status in _BUSY or isinstance(error, json.JSONDecodeError)
            if wait_s is None or not is_busy:
                raise ValueError(f"{about}: {_reason(error)}") from error
            pause_s = max(wait_s, _asked_to_wait_s(error))
            _LOG.warning("%s: busy (%s); again in %d s", about, status or "no answer in JSON", pause_s)
            time.sleep(pause_s)
    raise AssertionError("unreachable")


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_to_wait_s(error: BaseException) -> int:
    """Retry-After in seconds; 0 where there is none, or a date."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return int(text) if text.isdigit() else 0


def _reason(error: BaseException) -> str:
    """Why, in a line: of a file that could not be sent, which and why."""
    status, told = _status(error), getattr(error, "server_message", None) or _first_line(error)
    if status == 401:
        return f"the token in {TOKEN_VARIABLE} is refused (401)"
    if status == 403:
        return f"the token in {TOKEN_VARIABLE} may not do that (403): {told}"
    return (
        f"{told} ({_reason(error.__cause__)})"
        if isinstance(error, RuntimeError) and error.__cause__
        else told
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _without_xet(error: BaseException) -> str:
    if "xet-write-token" not in str(error):
        return ""
    return "; HF_HUB_DISABLE_XET=1 in the environment sends to a hub that has no Xet storage"
