"""Download: rows of a URL list become pictures in a shard, or a status that says why not."""

from darkroom.download.stage import download_part

__all__ = ["download_part"]
