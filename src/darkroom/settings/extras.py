"""Packages that darkroom does without where no option needs them: the extras of pyproject.toml."""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Extra:
    """One extra.

    Args:
        name: as pyproject.toml has it.
        module: what is imported of it.
    """

    name: str
    module: str

    def require(self, what: str) -> None:
        """Refuse what needs it, where it is not installed.

        Raises:
            ValueError: says what to run.
        """
        if find_spec(self.module) is None:
            raise ValueError(
                f"{what} needs {self.module}, which is not installed: run `uv pip install -e '.[{self.name}]'`"
            )


ONNX = Extra("onnx", "onnxruntime")
