"""Closed, typed configuration: the one source of every option's name, default, unit and doc."""

from darkroom.config.load import ConfigError, Project, load_dataset, load_project
from darkroom.config.schema import schema_text

__all__ = ["ConfigError", "Project", "load_dataset", "load_project", "schema_text"]
