"""The whole configuration, closed and typed: the one source of every option's name, default, unit and doc.

Sections of kinds lie with their kinds; unions of them are made here from the tables. What all sections are made
of is `darkroom.settings`. The names below are imported when they are first asked for: a job that reads one section
imports nothing for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.config.load import ConfigError, Project, load_dataset, load_project, load_run
    from darkroom.config.schema import schema_text

__all__ = ["ConfigError", "Project", "load_dataset", "load_project", "load_run", "schema_text"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "schema" if name == "schema_text" else "load"
    return getattr(import_module(f"{__name__}.{home}"), name)
