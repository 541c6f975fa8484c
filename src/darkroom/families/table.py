"""The table of families: `model.family` names one.

Other packages add theirs by an entry point of the group `darkroom.families`, see `darkroom.kinds`.
"""

from typing import Any

from darkroom.families import flux, mmdit, sd3, unet_sd, unet_sdxl
from darkroom.families.base import Family
from darkroom.kinds import table

# The first is the default.
FAMILIES: dict[str, Family] = table(
    "darkroom.families", mmdit.SPEC, unet_sd.SPEC, unet_sdxl.SPEC, sd3.SPEC, flux.SPEC
)


def family_of(pipeline: Any) -> Family:
    """The family that a pipeline's class belongs to.

    Raises:
        ValueError: it is none's.
    """
    name = type(pipeline).__name__
    for family in FAMILIES.values():
        if name in family.pipelines:
            return family
    known = ", ".join(name for family in FAMILIES.values() for name in family.pipelines)
    raise ValueError(f"a {name} is none of the pipelines that can be drawn from: {known}")
