"""SHA-256 of files, folders and plain values, and the identity of a sample."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: str | Path) -> str:
    """Hex SHA-256 over the sorted (relative name, content) of every visible file below `path`."""
    path = Path(path)
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    visible = [n for n in names if not any(piece.startswith(".") for piece in n.split("/"))]
    return sha256_json({name: sha256_file(path / name) for name in visible})


def sha256_path(path: str | Path) -> str:
    """Hex SHA-256 of a file, or of a folder as `sha256_folder` defines it."""
    return sha256_folder(path) if Path(path).is_dir() else sha256_file(path)


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def in_key_order(value: Any) -> Any:
    """A JSON-able value with the keys of all its mappings sorted, for who takes another order for another one."""
    if isinstance(value, dict):
        return {key: in_key_order(value[key]) for key in sorted(value)}
    return [in_key_order(item) for item in value] if isinstance(value, list) else value


def sample_uid(url: str, content_sha256: str) -> str:
    """The identity of a sample: 128 bits (32 hex digits) of SHA-256 over its URL and content hash.

    `content_sha256` is the hex hash of the downloaded bytes, or "" when the download failed.
    """
    return hashlib.sha256(f"{url}\n{content_sha256}".encode()).hexdigest()[:32]
