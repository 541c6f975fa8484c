"""A file system without flock, for any program: a small library that stands before the system's own call."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

# How file systems refuse, and one that says yes and locks nothing.
REFUSALS = ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "0")
_LIBRARY = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = REFUSAL; return errno ? -1 : 0; }
"""


def without_flock(folder: Path, refusal: str) -> Mapping[str, str]:
    """Environment variables under which flock refuses so; skips the test where nothing compiles C."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder.mkdir(parents=True, exist_ok=True)
    library, source = folder / "no_flock.so", folder / "no_flock.c"
    source.write_text(_LIBRARY)
    command = [compiler, "-shared", "-fPIC", f"-DREFUSAL={refusal}", "-o", library, source]
    subprocess.run(command, check=True)
    before = os.environ.get("LD_PRELOAD")
    return {"LD_PRELOAD": f"{library}:{before}" if before else str(library)}
