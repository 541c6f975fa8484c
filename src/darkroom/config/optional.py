"""Packages that darkroom does without: only some options need them."""

from importlib.util import find_spec

# Optimizer -> the package that has it.
_PACKAGES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedulefree": "schedulefree"}


def check_optimizer(optimizer: str) -> None:
    """Refuse an optimizer whose package is not installed.

    Raises:
        ValueError: says what to install, or to write instead.
    """
    package = _PACKAGES.get(optimizer)
    if package is not None and find_spec(package) is None:
        raise ValueError(
            f"train.optimizer: {optimizer} needs {package}, which is not installed: run `pip install {package}`,"
            " or write adamw"
        )
