"""Files that lie elsewhere, such as `s3://bucket/list.parquet`, through `fsspec`."""

import posixpath
import uuid
from collections.abc import Sequence
from typing import Any, BinaryIO

from darkroom.sources.base import Stamp

# Of what a store tells about a file, what changes when it is written again.
_VERSIONS = (
    "ETag",
    "etag",
    "Content-MD5",
    "content_md5",
    "md5Hash",
    "generation",
    "Last-Modified",
    "LastModified",
)
_VERSIONS_OF_OTHERS = ("last_modified", "mtime", "created")


# Stores whose files are read in pieces, each a request.
_SENDS_PIECES = {"s3", "gs", "http"}


def is_remote(text: str) -> bool:
    """Whether a path of the configuration is an address."""
    return "://" in text


class RemoteFile:
    """A file of a store, with what of a `Path` is needed to read it."""

    def __init__(self, system: Any, path: str, root: str = "") -> None:
        self._system, self.path = system, path
        self.name = posixpath.basename(path.partition("?")[0])
        self.below = path.removeprefix(root).lstrip("/") or self.name

    def __str__(self) -> str:
        return str(self._system.unstrip_protocol(self.path))

    def open(self, is_random: bool = False) -> BinaryIO:
        """Its bytes: one after another, or `is_random`, from where one asks for them.

        Raises:
            OSError: it cannot be read.
        """
        options: dict[str, Any] = {}
        if is_random and _SENDS_PIECES & set(_protocols(self._system)):
            # What is asked for and no more: their own reading ahead takes megabytes of columns that nobody named.
            options = {"cache_type": "none"}
        elif not is_random and "http" in _protocols(self._system):
            # A web server need not be able to send a piece of a file.
            options = {"block_size": 0}
        try:
            file: BinaryIO = self._system.open(self.path, "rb", **options)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        return file

    def stamp(self) -> Stamp:
        """What changes when it is written again; always another, where its store tells nothing of the kind.

        Raises:
            OSError: it is not there, or its store does not answer.
        """
        try:
            told = self._system.info(self.path)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        versions = [str(told[key]) for key in _VERSIONS if told.get(key)]
        return [told.get("size"), *(versions or [uuid.uuid4().hex])]


def remote_files(text: str) -> Sequence[RemoteFile]:
    """The files that an address means: one, those of a folder, or those of a pattern; sorted.

    Raises:
        ValueError: no package is here that reads such addresses, or the store does not answer; names the address.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(text)
        is_web = "http" in _protocols(system)
        if set("*[") & set(path) or ("?" in path and not is_web):
            found, root = system.glob(path), path.partition("*")[0].rpartition("/")[0]
        elif not is_web and system.isdir(path):
            found, root = [name for name in system.find(path) if not _hidden(name, path)], path
        else:
            # Not `exists`, for which a web server would send the whole file.
            system.info(path)
            found, root = [path], ""
        return [RemoteFile(system, name, root) for name in sorted(found)]
    except FileNotFoundError:
        return []
    except ImportError as error:
        raise ValueError(f"{text}: needs another package ({error})") from None
    except Exception as error:
        # Each store has errors of its own.
        raise ValueError(f"{text}: cannot be listed ({type(error).__name__}: {error})") from None


def _protocols(system: Any) -> Sequence[str]:
    return [system.protocol] if isinstance(system.protocol, str) else list(system.protocol)


def _hidden(name: str, root: str) -> bool:
    """As in a folder of this machine: names that begin with a dot or, as Spark's own files do, with _."""
    return any(part.startswith((".", "_")) for part in name.removeprefix(root).split("/"))
