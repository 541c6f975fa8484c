"""Reading YAML files as YAML 1.2 has them, which is how DVC reads them: what looks like a number is one.

PyYAML itself knows 1.1 alone, where `1e-4` is a text, `no` is false, `012` is 10 and `1:30` is 90.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """A file that cannot be read as YAML; the message names it, and the line where there is one."""


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: mappings, lists, texts, numbers, booleans and None.

    Raises:
        YamlError: it cannot be read, is no YAML, or gives a key twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise YamlError(f"{path}: not UTF-8 text ({error}); save it in that encoding") from None
    except OSError as error:
        raise YamlError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"{path}: not valid YAML: {error}") from None


class UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's, the one in C where it is there, but a key given twice is an error instead of a silent loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Before `<<` brings in keys that those of the mapping itself may replace.
        keys = [key for key, _ in node.value if key.tag != _MERGE and isinstance(key, yaml.ScalarNode)]
        counts = Counter(key.value for key in keys)
        for key in reversed(keys):
            if counts[key.value] > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


# Kind of scalar -> what it looks like, and with which characters it begins. The first that fits counts.
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9][0-9_]*|[0-9][0-9_]*\.?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": ("<<", "<"),
}


def as_yaml_1_2(loader: Any) -> Any:
    """One of PyYAML's loaders, which reads scalars as YAML 1.2 has them from now on."""
    loader.yaml_implicit_resolvers = {}
    for kind, (pattern, first) in _SCALARS.items():
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"(?:{pattern})$"), list(first))
    loader.add_constructor("tag:yaml.org,2002:int", _integer)
    return loader


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "").lower()
    bases = {"0x": 16, "0o": 8, "0b": 2}
    return int(text, bases.get(text.lstrip("+-")[:2], 10))


@as_yaml_1_2
class _Loader(UniqueKeyLoader): ...
