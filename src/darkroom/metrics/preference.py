"""What people would prefer, as CLIPs tell it that learned it from their choices: a picture's fit to its prompt.

Both are a factor times the cosine of picture and prompt. Numbers of other CLIPs mean something else: the
component's name is part of the score's, and its digest is in the protocol.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from darkroom.metrics.base import VARIANT, Inputs, Measured
from darkroom.metrics.embeddings import WithClip, cosines, with_prompts


def measure_preference(
    name: str,
    section: WithClip,
    inputs: Inputs,
    clip: Any,
    identity: dict[str, str],
    factor: float,
    words: Callable[[str], str],
) -> Measured:
    """`factor` times the cosine of every picture and its prompt, in the column `name`.

    Args:
        clip, identity: as `embeddings.load` gives them.
        words: the section's CLIP -> the definition.
    """

    def score(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        return factor * cosines(images, texts)

    table = with_prompts(name, section, inputs, clip, score)
    protocol = {"definition": words(section.clip), VARIANT: section.clip, "clip": identity, "factor": factor}
    return Measured(table, protocol)
