"""The README of an exported model: how to draw with it as it was trained, with diffusers alone."""

from typing import Any

from darkroom.config.run import Sampling
from darkroom.families.table import family_of

CARD_FILE = "README.md"
# What the card calls the place that it lies in.
_PLACE = "THIS FOLDER"

_CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
---

# A text-to-image model, trained with darkroom

{title}. It draws with diffusers:

```python
from diffusers import {loader}

pipeline = {loader}.from_pretrained("{place}"{trust})
picture = pipeline("a prompt", {options}).images[0]
```
"""
_TOKENS = """
`max_sequence_length={length}` belongs to the model: it saw {length} T5 tokens of every caption. With another
number, such as the pipeline's own default, the same prompt and seed give another picture.
"""


def card(pipeline: Any, sampling: Sampling) -> str:
    """The README of a pipeline: what it is, and the call that draws as training drew."""
    family = family_of(pipeline)
    name, is_own = type(pipeline).__name__, type(pipeline).__module__ in family.carried
    options = {
        "width": sampling.width_px,
        "height": sampling.height_px,
        "num_inference_steps": sampling.num_inference_steps,
        **family.options(pipeline, 1, sampling.guidance_scale, ""),
    }
    length = options.get("max_sequence_length")
    found = _CARD.format(
        title=family.title[0].upper() + family.title[1:],
        place=_PLACE,
        loader="DiffusionPipeline" if is_own else name,
        trust=", trust_remote_code=True" if is_own else "",
        options=", ".join(f"{key}={value!r}" for key, value in options.items() if value != ""),
    )
    return found + (_TOKENS.format(length=length) if length else "")


def usage(card_text: str, source: str) -> str:
    """What a folder's README says of drawing, for the same model at `source`, such as a repository's name."""
    return card_text.partition("\n# ")[2].partition("\n")[2].strip().replace(_PLACE, source)
