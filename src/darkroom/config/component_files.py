"""What pretrained components' files on this machine say, read before any job and without a library."""

import json
from pathlib import Path
from typing import Any

from darkroom.components.base import Component
from darkroom.settings.paths import local_path


def component_files(component: Component, root: Path) -> Path:
    """The folder of a component, which need not be there; `root` is the project's."""
    try:
        return root / local_path(component.path) / (component.subfolder or "")
    except ValueError:  # its variable of the environment is told where the component is used
        return root / component.path


def network_folder(folder: Path, part: str) -> Path:
    """The network's own folder, in a pipeline's or alone."""
    return folder / part if (folder / part).is_dir() else folder


def read_json_file(path: Path) -> dict[str, Any] | None:
    """What a configuration says; None where it is not there, or is none, which is told by who needs it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
