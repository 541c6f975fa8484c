"""Alt-texts as the web has them: mostly of no use, sometimes false, now and then a caption.

About one in five of a scene's alt-texts names exactly what is in the picture; that is why recaptioning
is worth its time.
"""

import numpy as np

from darkroom_demo.captions import is_right, long_caption, short_caption
from darkroom_demo.scenes import Scene, sample_scene

_MANNERS = ("good", "wrong", "title", "seo", "file_name", "vague", "empty")
_SHARES = (0.235, 0.17, 0.20, 0.13, 0.12, 0.085, 0.06)
_SHARE_LONG = 0.8
_SHOPS = (
    "ShapeShop.example",
    "StickerWorld",
    "Paper & Co.",
    "wallart4u.example",
    "Muster-Laden",
    "PRINTHOUSE",
)
_TITLES = (
    "Buy {number}x Premium {noun} Sticker | {shop}",
    "{noun} Wall Decal, Self-Adhesive, {number} cm - {shop}",
    "{shop}: {noun} T-Shirt (Unisex) SALE -{number}%",
    "NEW!! {noun} fridge magnet &ndash; pack of {number} &ndash; {shop}",
    "{noun} Poster {number}x{number} cm &amp; frame | {shop}",
    "{noun}-Aufkleber, {number} Stück, wetterfest | {shop}",
)
_SEO_WORDS = (
    "free download",
    "clipart",
    "stock photo",
    "HD wallpaper",
    "vector",
    "cheap",
    "best 2019",
    "royalty free",
    "printable",
    "png transparent",
    "icon set",
    "images near me",
)
_VAGUE = (
    "image",
    "photo",
    "untitled",
    "Click to enlarge",
    "Thumbnail for post {number}",
    "picture {number} of {number}",
    "Image may contain: text",
    "view full size",
    "No description available.\nShare this",
    "фото {number}",
    "写真",
    "Bild Nr. {number}\t(Archiv)",
    'alt=""',
)
_CAMERAS = (
    "IMG_{date}_{number:03d}",
    "DSC{number:05d}",
    "P{number:07d}",
    "Screenshot_{date}-{number}",
    "{date}",
)
_ENDINGS = (".jpg", ".JPG", ".jpeg", "_thumb.jpg", " (1).jpg", ".png", "")


def alt_text(
    rng: np.random.Generator, long: str, short: str, nouns: tuple[str, ...], scene: Scene | None = None
) -> tuple[str, bool]:
    """The alt-text of a picture whose truth is known.

    Args:
        rng: the only source of chance.
        long: a long true caption.
        short: a short true caption.
        nouns: what the picture shows, as a shop would call it, e.g. ("cross", "circle").
        scene: the picture's scene if it has one; a wrong caption is then truly wrong.

    Returns:
        (text, good): the alt-text, may be empty; and whether it is one of the true captions.
    """
    manner = str(rng.choice(_MANNERS, p=_SHARES))
    number = int(rng.integers(2, 100))
    if manner == "good":
        return (long if rng.random() < _SHARE_LONG else short), True
    if manner == "wrong":
        return _wrong(rng, scene), False
    if manner == "title":
        noun = str(rng.choice(nouns)).title()
        return str(rng.choice(_TITLES)).format(noun=noun, number=number, shop=rng.choice(_SHOPS)), False
    if manner == "seo":
        words = [str(w) for w in rng.choice(_SEO_WORDS, size=int(rng.integers(2, 7)), replace=False)]
        words.insert(int(rng.integers(len(words))), str(rng.choice(nouns)))
        return ", ".join(words), False
    if manner == "file_name":
        date = f"20{rng.integers(8, 22):02d}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
        name = str(rng.choice(_CAMERAS)).format(date=date, number=int(rng.integers(1, 1000)))
        return name + str(rng.choice(_ENDINGS)), False
    if manner == "vague":
        return str(rng.choice(_VAGUE)).format(number=number), False
    return "", False


def _wrong(rng: np.random.Generator, scene: Scene | None) -> str:
    """The caption of another scene, never of one that is held out."""
    while True:
        other = sample_scene(rng, held_out=False)
        text = long_caption(other) if rng.random() < 0.5 else short_caption(other)
        if scene is None or not is_right(text, scene):
            return text
