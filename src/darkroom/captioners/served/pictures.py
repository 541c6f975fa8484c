"""Messages that show a server a picture and say what is asked about it."""

import base64
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from darkroom.captioners.base import Pictures, Request

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class PictureMessages:
    """See `served.ask.Messages`.

    Args:
        detail: how closely the picture is looked at; None: not said.
        max_side_px: pictures with a longer side are reduced.
    """

    detail: str | None
    max_side_px: int

    def shown(self, pictures: Pictures, place: int) -> bytes:
        """What is sent of a picture: the stored JPEG, where that is small enough."""
        content = pictures.jpeg(place)
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as stored:
            if max(stored.size) <= self.max_side_px:
                return content
        image = pictures.image(place)
        image.thumbnail((self.max_side_px, self.max_side_px), Image.Resampling.LANCZOS)
        reduced = io.BytesIO()
        image.save(reduced, "JPEG", quality=_JPEG_QUALITY)
        return reduced.getvalue()

    def content(self, request: Request, shown: bytes) -> list[dict[str, Any]]:
        """The picture comes before the words, so that servers read it once for several prompts."""
        image: dict[str, str] = {"url": "data:image/jpeg;base64," + base64.b64encode(shown).decode()}
        if self.detail is not None:
            image["detail"] = self.detail
        return [{"type": "image_url", "image_url": image}, {"type": "text", "text": request.prompt}]
