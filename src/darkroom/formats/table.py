"""The table of formats: `darkroom export --format` names one.

Other packages add theirs by an entry point of the group `darkroom.formats`, see `darkroom.kinds`.
"""

from darkroom.formats import gguf, lora_kohya, single_file
from darkroom.formats.base import Format
from darkroom.kinds import table

FORMATS: dict[str, Format] = table("darkroom.formats", single_file.SPEC, lora_kohya.SPEC, gguf.SPEC)
