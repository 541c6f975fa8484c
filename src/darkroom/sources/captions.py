"""Captions as people keep them: in texts and JSON beside their pictures, or not at all."""

import os
import stat
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from darkroom.settings.json_texts import read_json
from darkroom.sources.base import SourceSection

# Where the configuration does not say what captions are called: what people call them.
CAPTION_KEYS = ("caption", "captions", "text", "prompt", "description")
MAX_BYTES = 65_536


class CaptionedSection(SourceSection):
    """A source whose pictures have captions of their own, or none."""

    caption_key: str | None = Field(
        None,
        description="what captions are called in JSON and in columns; null: the first that is there of"
        f" {', '.join(CAPTION_KEYS)}",
    )
    uncaptioned: Literal["keep", "drop"] | None = Field(
        None, description="pictures without a caption; null: keep them where the dataset has a captioner"
    )

    @property
    def drops_uncaptioned(self) -> bool:
        """Whether a picture without a caption ends as no_caption."""
        return self.uncaptioned != "keep"

    def with_captioner(self, has_captioner: bool) -> Self:
        """See `SourceSection.with_captioner`."""
        if self.uncaptioned is not None:
            return self
        return self.model_copy(update={"uncaptioned": "keep" if has_captioner else "drop"})


def caption_key(keys: list[str], key: str | None, where: object) -> str:
    """What captions are called among `keys`: `key`, or one of CAPTION_KEYS.

    Raises:
        ValueError: it is not there, or none of these is.
    """
    wanted = CAPTION_KEYS if key is None else (key,)
    for name in wanted:
        if name in keys:
            return name
    raise ValueError(
        f"{where}: no captions: none of its keys is {' or '.join(wanted)}; name the one that is as"
        f" source.caption_key. It has {', '.join(keys)}"
    )


def read_captions(path: Path, one_a_line: bool, key: str | None) -> list[str]:
    """The captions in a file, see `captions_in`; none if it is no regular file."""
    return captions_in(_read(path), path.suffix.lower().removeprefix("."), one_a_line, key)


def captions_in(content: bytes, ending: str, one_a_line: bool, key: str | None) -> list[str]:
    """The captions in a text: its words on one line, or those of each of its lines; in JSON, the value of `key`.

    None if there are none, if it is longer than MAX_BYTES, or no UTF-8.
    """
    if len(content) > MAX_BYTES:
        return []
    try:
        text = content.decode("utf-8-sig")
        if ending == "json":
            return captions_of(read_json(text), key)
    except ValueError:  # also where it is no UTF-8
        return []
    return _words(text.splitlines() if one_a_line else [text])


def captions_of(found: object, key: str | None) -> list[str]:
    """Of what JSON holds: of an object, the first of the keys that captions have, a text or a list of texts."""
    if not isinstance(found, dict):
        return []
    value = next((found[name] for name in ((key,) if key else CAPTION_KEYS) if found.get(name)), None)
    values = value if isinstance(value, list) else [value]
    return _words([text for text in values if isinstance(text, str)])


def _words(texts: list[str]) -> list[str]:
    return [words for words in (" ".join(text.split()) for text in texts) if words]


def _read(path: Path) -> bytes:
    try:
        # Neither a named pipe nor a device can make the plan wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            return file.read(MAX_BYTES + 1)
    except OSError:
        return b""
