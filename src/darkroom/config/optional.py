"""Packages that darkroom does without: only some options need them."""

from importlib.util import find_spec

# Of optimizers and of weights of few bits the package that has it.
_QUANTIZES = "bitsandbytes"
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


def check_base_package(base_dtype: str) -> None:
    """Refuse base weights in 8 or 4 bits where their package is not installed.

    Raises:
        ValueError: says what to install, or to write instead.
    """
    if base_dtype != "float32" and find_spec(_QUANTIZES) is None:
        raise ValueError(
            f"model.lora.base_dtype: {base_dtype} needs {_QUANTIZES}, which is not installed: run `pip install"
            f" {_QUANTIZES}`, or write float32"
        )
