"""Where a configuration says that something lies: below the project, or below a folder of the environment."""

import os
import re
from pathlib import Path

_VARIABLE = re.compile(r"^\$(\w+|\{\w+\})(?=/|$)")


def local_path(text: str) -> Path:
    """The path that `text` means, see `expanded`."""
    return Path(expanded(text))


def expanded(text: str) -> str:
    """The path or address that `text` means; one that starts with `$NAME` or `${NAME}` starts with that variable's
    value.

    What is recorded is `text`, so that manifests hold nothing of the machine.

    Raises:
        ValueError: the variable is not set; names it.
    """
    found = _VARIABLE.match(text)
    if not found:
        return text
    name = found.group(1).strip("{}")
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"{text}: the environment variable {name} is not set; export {name}=FOLDER")
    return value + text[found.end() :]
