"""URLs as the web has them; all of the demo's sites live on one nominal host."""

import numpy as np

BASE = "http://127.0.0.1:8907"
"""The nominal host: a server takes any free port, and `connect_to` leads there."""

_SITES = (
    "shapeshop.example/media/catalog/product",
    "stickerworld/wp-content/uploads/{year}/{month:02d}",
    "blog.geometry/images",
    "forum/attachments/{number}",
    "cdn/i/{number}",
    "users/{number}/gallery",
    "museum/collection",
    "img",
)
_NAMES = (
    "IMG_{year}{month:02d}{day:02d}_{number:03d}",
    "DSC{number:05d}",
    "product-{number}-front",
    "thumb%20{number}",
    "picture_{number}",
    "shape+sticker+{number}",
    "{number}-large",
)
_QUERIES = ("?w=640", "?v={number}", "?format=large&v={number}")


def picture_path(rng: np.random.Generator, ending: str, mark: str) -> str:
    """A path on the nominal host, e.g. "/img/DSC00042-s1f.jpg"; `mark` makes it the only one."""
    year, month, day, number = (int(rng.integers(*r)) for r in ((2008, 2022), (1, 13), (1, 29), (1, 1000)))
    site = _SITES[rng.integers(len(_SITES))]
    name = _NAMES[rng.integers(len(_NAMES))]
    query = _QUERIES[rng.integers(len(_QUERIES))] if rng.random() < 0.1 else ""
    if rng.random() < 0.08:
        ending = ending.upper()
    pattern = f"/{site}/{name}-{mark}{ending}{query}"
    return pattern.format(year=year, month=month, day=day, number=number)


PRIVATE_URLS = (
    "http://10.0.0.1/camera/latest.jpg",
    "http://169.254.169.254/latest/meta-data/photo.jpg",
    "http://192.168.1.1/images/router.png",
    "http://[fd00::1]/printer.jpg",
)
FILE_URLS = ("file:///etc/passwd", "file:///home/user/Pictures/holiday.jpg")
OTHER_URLS = ("ftp://ftp.shapeshop.example/pub/star.jpg", "data:image/gif;base64,R0lGODlhAQABAAAAACw=")


def special_url(fault: str, index: int) -> str | None:
    """The URL of the `index`-th row of a fault whose URL is not on the nominal host, else None."""
    urls = {"private_address": PRIVATE_URLS, "file_url": FILE_URLS, "other_scheme": OTHER_URLS}.get(fault)
    return f"{urls[index % len(urls)]}{_again(index // len(urls))}" if urls else None


def _again(turn: int) -> str:
    """Keeps URLs apart when a large world goes round the lists."""
    return f"?copy={turn}" if turn else ""
