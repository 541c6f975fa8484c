"""The tools that exports are read by, each of pinned versions, in folders of their own for PYTHONPATH.

A folder has what differs from our environment, whose PyTorch it shares; `speed/peers.py` makes it
once and keeps it.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "speed"))
import peers  # noqa: E402 (in speed/, which is no package)

NotHad = peers.NotHad


@dataclass(frozen=True)
class Tool:
    """pins: packages from the index that pip has. variables: of the environment while they are built."""

    title: str
    pins: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


TOOLS = {
    "diffusers-older": Tool(
        "diffusers 0.33.1, transformers 4.51.3",
        (
            "diffusers==0.33.1", "transformers==4.51.3", "tokenizers==0.21.1", "huggingface-hub==0.30.2",
            "peft==0.15.2",
        ),
    ),
    "diffusers-newest": Tool(
        "diffusers 0.42.1, transformers 5.24.0", ("diffusers==0.42.1", "transformers==5.24.0")
    ),
}  # fmt: skip


def folder(name: str) -> Path:
    """Where a tool lies, made if it is not there.

    Raises:
        NotHad: it cannot be installed.
    """
    tool = TOOLS[name]
    return peers.installed(name, tool.pins, tool.variables)
