"""What each rule asks for, read from a profile as Snakemake and its SLURM executor read it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from darkroom.config.yaml_files import UniqueKeyLoader
from darkroom.slurm import sbatch
from darkroom.slurm.sbatch import Asked
from darkroom.slurm.values import NotComputable, Value, evaluate

# The rules that a profile does not name.
OTHERS = "other rules"
# What Snakemake asks for where `default-resources` does not speak of memory.
_DEFAULT_MEMORY = "min(max(2*input.size_mb, 1000), 8000)"
_MIB = 1.048576


@dataclass(frozen=True)
class Request:
    """What one job of a rule asks for: sbatch's `options` of its first attempt, and what they come to.

    `asked` and `asked_last` (of the last attempt) are None, and `options` empty, where submission fails before
    sbatch is called: `problems` say why. `notes` are what cannot be known here.
    """

    rule: str
    options: tuple[str, ...] = ()
    asked: Asked | None = None
    asked_last: Asked | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_profile(path: str | Path) -> list[Request]:
    """The requests of a profile, in its order, those of all other rules last.

    `path` is the profile's folder or its file.

    Raises:
        ValueError: the file is missing or is not built as a profile is; names the key.
    """
    file = _find(Path(path))
    try:
        # Values as Snakemake reads them; of a key that stands twice it takes the last without a word.
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=UniqueKeyLoader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: it should be KEY: VALUE lines")
    if "__use_yte__" in values:
        raise ValueError(f"{file}: a template (__use_yte__) is not read here")
    if values.get("executor") == "cluster-generic":
        raise ValueError(
            f"{file}: its executor (cluster-generic) does not ask SLURM, and this check asks nobody else"
        )
    try:
        defaults = _one_level(values.get("default-resources"), "default-resources")
        rules = _two_levels(values.get("set-resources"))
        threads = _one_level(values.get("set-threads"), "set-threads")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    retries = values.get("retries", 0)
    if not str(retries).isdecimal():
        raise ValueError(f"{file}: retries is {retries!r}; it should be a number")
    settings = {
        f"settings.{key}": str(values[name])
        for key in ("qos", "reservation")
        if (name := f"{values.get('executor', 'darkroom')}-{key}") in values
    }
    names = [*rules, *(name for name in threads if name not in rules), OTHERS]
    return [
        _request(
            name, {**_standard(defaults), **_standard(rules.get(name, {}))}, threads.get(name, "1"),
            int(retries) + 1, settings,
        )
        for name in names
    ]  # fmt: skip


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    for pattern in ("profile.yaml", "profile.v*+.yaml", "config.yaml", "config.v*+.yaml"):
        if found := sorted(path.glob(pattern)):
            return found[-1]
    raise ValueError(f"{path}: no such profile; --profile names a folder with a profile.yaml")


def _text(value: Any) -> str:
    """A value as it stands on the command line: a number that was quoted stays a text."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return value
        return repr(value)
    return str(value)


def _one_level(values: Any, key: str) -> dict[str, str]:
    """`{name: value}` of a mapping, or of a list of "name=value"."""
    if values is None:
        return {}
    if isinstance(values, str):
        values = [values]
    if isinstance(values, list):
        pairs = [str(entry).partition("=") for entry in values]
        if wrong := [entry for entry, pair in zip(values, pairs, strict=True) if not pair[1]]:
            raise ValueError(f"{key}: {wrong[0]!r} should be NAME=VALUE")
        return {name: value for name, _, value in pairs}
    if not isinstance(values, dict):
        raise ValueError(f"{key} is {values!r}; it should be NAME: VALUE lines or a list of NAME=VALUE")
    return {str(name): _text(value) for name, value in values.items()}


def _two_levels(values: Any) -> dict[str, dict[str, str]]:
    """`{rule: {name: value}}` of nested mappings, or of a list of "rule:name=value"."""
    key = "set-resources"
    found: dict[str, dict[str, str]] = {}
    if isinstance(values, dict):
        if wrong := [rule for rule, inner in values.items() if not isinstance(inner, dict)]:
            raise ValueError(f"{key}: {wrong[0]}: it should have NAME: VALUE lines below it")
        return {str(rule): _one_level(inner, f"{key}: {rule}") for rule, inner in values.items()}
    for name, value in _one_level(values, key).items():
        rule, colon, resource = name.partition(":")
        if not colon:
            raise ValueError(f"{key}: {name}={value} should be RULE:NAME=VALUE")
        found.setdefault(rule, {})[resource] = value
    return found


def _standard(values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Key -> (key as written, text); the ways to give memory and disk are one key."""
    found: dict[str, tuple[str, str]] = {}
    for key, text in values.items():
        size = re.fullmatch(r"(mem|disk)(?:_mb|_mib)?", key)
        found[f"{size[1]}_mb" if size else key] = (key, text)
    return found


def _request(
    rule: str,
    texts: Mapping[str, tuple[str, str]],
    threads: str,
    attempts: int,
    settings: Mapping[str, str],
) -> Request:
    texts = {"mem_mb": ("mem", _DEFAULT_MEMORY), **texts}
    first, wrong, notes = _values(texts, threads, 1)
    last, wrong_last, _ = _values(texts, threads, attempts)
    notes = [*notes, *sbatch.unheeded(written for written, _ in texts.values())]
    wrong = [*wrong, *(line for line in wrong_last if line not in wrong)]
    wrong += sbatch.problems(first)
    if wrong:
        return Request(rule, problems=tuple(wrong), notes=tuple(notes))
    try:
        options, options_last = (
            sbatch.options({**settings, **values}, int(values["threads"])) for values in (first, last)
        )
        return Request(
            rule, tuple(options), sbatch.read(options), sbatch.read(options_last), notes=tuple(notes)
        )
    except ValueError as error:
        return Request(rule, problems=(str(error),), notes=tuple(notes))


def _values(
    texts: Mapping[str, tuple[str, str]], threads: str, attempt: int
) -> tuple[dict[str, Value], list[str], Sequence[str]]:
    """The values of an attempt with `threads` among them, what is wrong, and what is not known."""
    values: dict[str, Value] = {"threads": 1}
    wrong, notes = [], []
    try:
        values["threads"] = evaluate("threads", threads, {"attempt": attempt})
        if not isinstance(values["threads"], int) or values["threads"] < 1:
            wrong.append(f"set-threads: {threads}; it should be a number of 1 or more")
            values["threads"] = 1
    except NotComputable as error:
        notes.append(f"set-{error}")
    except ValueError as error:
        wrong.append(f"set-{error}")
    variables = {"attempt": attempt, "threads": int(values["threads"])}
    for key, (written, text) in texts.items():
        try:
            value = evaluate(written, text, variables)
        except NotComputable as error:
            notes.append(str(error))
        except ValueError as error:
            wrong.append(str(error))
        else:
            if written == "mem_mib" and isinstance(value, int):
                value = int(value * _MIB)
            values[key] = value
    return values, wrong, notes
