"""`dvc.yaml` and `dvc.lock`, read: what DVC was told of each stage, and what it recorded. DVC is not imported."""

import configparser
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from darkroom.config import ConfigError
from darkroom.config.yaml_files import as_yaml_1_2
from darkroom.store.found import Digests, kind_of, read_bytes, shown

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
_CONFIGS = ".dvc/config", ".dvc/config.local"
_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Content:
    """A file's or a folder's bytes, as DVC names them: MD5, size, and of a folder the number of files."""

    md5: str
    size: int | None = None
    nfiles: int | None = None

    @classmethod
    def of_file(cls, digests: Digests) -> "Content":
        """A file's, which was read with its MD5."""
        return cls(digests.md5, digests.size)

    @classmethod
    def of_folder(cls, files: Mapping[str, Digests]) -> "Content":
        """A folder's, from all of its files by their path in it: the MD5 of their list, and `.dir`."""
        listed = [{"md5": files[path].md5, "relpath": path} for path in sorted(files)]
        md5 = hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
        return cls(f"{md5}.dir", sum(file.size for file in files.values()), len(files))

    def is_in(self, cache: Path) -> bool:
        """Whether a folder of DVC's cache has it; of a folder, the list of its files."""
        return (cache / "files/md5" / self.md5[:2] / self.md5[2:]).exists()

    def __str__(self) -> str:
        files = "" if self.nfiles is None else f", {self.nfiles} files"
        return f"md5 {self.md5}, {self.size} bytes{files}"


@dataclass(frozen=True)
class Held:
    """What dvc.lock holds of a stage: its command, its options by file, and the contents of its files."""

    cmd: str
    params: dict[str, Any] = field(default_factory=dict)
    deps: dict[str, Content] = field(default_factory=dict)
    outs: dict[str, Content] = field(default_factory=dict)


def read_lock(path: str | Path = LOCK) -> dict[str, Held]:
    """DVC's name -> what dvc.lock holds, of every stage; {} where there is no such file.

    Raises:
        ConfigError: it cannot be read, or is none that DVC wrote.
    """
    return {name: _held(path, name, body) for name, body in _stages_in(path).items()}


def read_pipeline(path: str | Path = PIPELINE) -> dict[str, dict[str, Any]]:
    """DVC's name -> entry of dvc.yaml, of every stage; {} where there is no such file.

    Raises:
        ConfigError: it cannot be read.
    """
    return _stages_in(path)


def read_cache_folder() -> Path:
    """Where DVC keeps what it recorded: `cache.dir` of its configuration files, of which later ones prevail."""
    configs = (
        os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg",
        os.environ.get("XDG_CONFIG_HOME") or "~/.config",
    )
    folder = Path(".dvc/cache")
    parser = configparser.ConfigParser(interpolation=None)
    for path in (*(Path(of, "dvc/config").expanduser() for of in configs), *map(Path, _CONFIGS)):
        parser.clear()
        with contextlib.suppress(configparser.Error, UnicodeDecodeError, OSError):
            parser.read(path, encoding="utf-8")
            folder = path.parent / parser.get("cache", "dir")
    return folder


def read_options(path: str | Path) -> dict[str, Any]:
    """A YAML file of options as DVC reads it, which is YAML 1.2: 1e-15 is a number.

    Raises:
        ConfigError: it cannot be read.
    """
    # A link is as good as the file that it leads to.
    real = os.path.realpath(path)
    if kind_of(real) is None:
        return {}
    try:
        body = yaml.load(read_bytes(real, _MAX_BYTES), Loader=_Loader)
    except yaml.YAMLError as error:
        hint = "`git status` says whether a merge left it so"
        raise ConfigError(f"{shown(path)}: not valid YAML ({error})\n{hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{shown(path)}: cannot be read ({error})") from None
    if body is not None and not isinstance(body, dict):
        raise ConfigError(f"{shown(path)}: holds {type(body).__name__}, not a mapping of keys to values")
    return body or {}


@as_yaml_1_2
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)): ...  # type: ignore[misc]


def _stages_in(path: str | Path) -> dict[str, dict[str, Any]]:
    stages = read_options(path).get("stages", {})
    if not isinstance(stages, dict) or not all(isinstance(body, dict) for body in stages.values()):
        raise ConfigError(f"{shown(path)}: stages: not as DVC writes them")
    return stages


def _held(path: str | Path, name: str, body: Mapping[str, Any]) -> Held:
    try:
        cmd, params = body["cmd"], body.get("params", {})
        deps, outs = (_contents(body.get(key, [])) for key in ("deps", "outs"))
        if not isinstance(cmd, str) or not all(isinstance(options, dict) for options in params.values()):
            raise TypeError("cmd or params")
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{shown(path)}: {name}: not as DVC writes it ({error})") from None
    return Held(cmd, params, deps, outs)


def _contents(items: list[dict[str, Any]]) -> dict[str, Content]:
    return {item["path"]: Content(str(item["md5"]), item.get("size"), item.get("nfiles")) for item in items}
