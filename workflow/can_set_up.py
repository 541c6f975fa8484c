"""Say why an environment cannot be set up here, before anything is made: `python workflow/can_set_up.py .venv`.

Pythons that are too old run this too, so it keeps to what Python 3.6 knows.
"""

import os
import platform
import re
import shutil
import sys

# As measured, with the bytecode, and rounded up.
ENVIRONMENT_GB, CACHE_GB = 10, 9
OLDEST_GLIBC = (2, 28)


def _machine():
    """The platform's problem: the locked wheels are those of one."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        return f"the locked packages are for Linux on x86_64, and this is {system} on {machine}"
    library, version = platform.libc_ver()
    if library != "glibc":
        return "the locked packages need the GNU C library (glibc), and this Linux has another, such as musl"
    if tuple(int(number) for number in version.split(".")[:2]) < OLDEST_GLIBC:
        return f"the locked packages need glibc 2.28 or newer, and this is {version}"
    return None


def _python(name):
    version = sys.version_info[:2]
    if not (3, 11) <= version < (3, 13):
        found = f"{name} is {version[0]}.{version[1]}"
        return f"darkroom needs Python 3.11 or 3.12, and {found}; try: make PYTHON=python3.11"
    return None


def _place(venv):
    """The folder's problem: Snakemake does not quote the path of the Python that runs a script."""
    if os.path.islink(venv):
        other = os.path.realpath(venv)
        return f"{venv} is a link to {other}, an environment of another project: remove the link"
    path = os.path.abspath(venv)
    wrong = re.search(r"[^\w./+@%,=-]", path)
    if wrong:
        return (
            f"the environment cannot lie in {path}, because of {wrong.group()!r} in the path: "
            "move the project to a folder without blanks and special characters"
        )
    return None


def _cache():
    """Where uv keeps what it has downloaded."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("UV_CACHE_DIR") or os.path.join(home, "uv")


def _existing(path):
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _space(venv):
    """The disk's problem, where nothing is installed yet: on one disk both share their files by hard links."""
    needed = {}
    for path, size_gb in ((_cache(), CACHE_GB), (os.path.join(venv, "lib"), ENVIRONMENT_GB)):
        folder = _existing(path)
        device = os.stat(folder).st_dev
        if not os.path.exists(path):
            needed[device] = (folder, size_gb)
    for folder, size_gb in needed.values():
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < size_gb:
            return (
                f"the environment needs {size_gb} GB, and the disk of {folder} has {free_gb:.1f} GB free: "
                "free some, or put the cache of downloads on another disk with UV_CACHE_DIR"
            )
    return None


def problem(venv, name):
    """What prevents an environment in `venv` with this Python, called `name`; None where nothing does."""
    return _machine() or _python(name) or _place(venv) or _space(venv)


if __name__ == "__main__":
    sys.exit(problem(sys.argv[1], sys.argv[2]))
