"""Packages that darkroom does without: only some options need them."""

from importlib.util import find_spec


def check_optimizer(optimizer: str) -> None:
    """Refuse an optimizer whose package is not installed.

    Raises:
        ValueError: says what to install, or to write instead.
    """
    if optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise ValueError(
            "train.optimizer: adamw8bit needs bitsandbytes, which is not installed: run `pip install"
            " bitsandbytes`, or write adamw"
        )
