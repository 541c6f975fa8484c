"""What `train.compile` needs of a machine: a C++ compiler and Python's headers, on CPUs and GPUs alike."""

import os
import shutil
import sysconfig
from pathlib import Path


def missing_compiler() -> str:
    """What is missing to compile a network here, or "". inductor takes the compiler that CXX names, else g++."""
    name = os.environ.get("CXX") or "g++"
    if shutil.which(name) is None:
        return f"there is no C++ compiler ({name})"
    headers = Path(sysconfig.get_path("include"))
    return "" if (headers / "Python.h").is_file() else f"{headers} has no Python.h"


def check_compiler(compile: str) -> None:
    """Refuse `compile: on` where nothing can be compiled.

    Raises:
        ValueError: says what to install, or to write instead.
    """
    missing = missing_compiler() if compile == "on" else ""
    if missing:
        raise ValueError(
            f"train.compile: on needs a compiler, and {missing}: install one (Debian: `apt-get install g++"
            " python3-dev`), or write compile: off"
        )


def check_attention_compiles(compile: str, attention: str) -> None:
    """Refuse compiled blocks with another attention than torch's own.

    Raises:
        ValueError: says what to write instead.
    """
    if compile != "off" and attention != "sdpa":
        raise ValueError(
            f"train.compile: {compile} needs torch's own attention, and model.attention is {attention}; write"
            " attention: sdpa, or compile: off"
        )
